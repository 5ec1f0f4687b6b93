from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.session.resources import Resources
from pipelines.session.shares import Cluster, Shares, SharesError, share_cluster


def share(*, cpus: float = 2.0, gpus: float = 0.0, may_grow: bool = False, **asked: Any) -> Shares:
    resources = Resources.model_validate({"gpus_per_actor": 0.0} | asked)
    return share_cluster(resources, Cluster(cpus=cpus, gpus=gpus, is_private=not may_grow))


@given(
    st.integers(1, 256),
    st.integers(1, 64),
    st.integers(0, 64),
    st.integers(1, 8),
    st.floats(0.1, 64.0),
)
def test_all_stages_fit_together_on_any_machine(
    cpus: int, actors: int, more: int, score_actors: int, cpus_per_actor: float
):
    """Else one of them waits for ever; and a share of nothing would not be counted by Ray."""
    made = share(
        cpus=cpus,
        actors=actors,
        max_actors=actors + more,
        score_actors=score_actors,
        cpus_per_actor=cpus_per_actor,
    )
    asked = (actors + more) * made.generator_cpus + score_actors * made.helper_cpus
    assert asked <= cpus + 1e-9
    assert made.generator_cpus > 0
    assert made.helper_cpus > 0


def test_one_processor_is_enough_and_two_are_used():
    assert share(cpus=1.0).generator_cpus == 0.9
    two = share(cpus=2.0)
    assert two.generator_cpus == 1.0
    assert two.generator_threads == 2


def test_actors_divide_the_threads_of_a_machine():
    assert share(cpus=8.0, actors=4).generator_threads == 2
    assert share(cpus=2.0, actors=4).generator_threads == 1


def test_actors_that_may_come_need_room_here_and_bring_it_where_machines_are_added():
    here = share(cpus=8.0, actors=2, max_actors=8, cpus_per_actor=8.0)
    assert (here.num_generators, here.max_generators, here.generator_threads) == (2, 8, 1)
    assert here.generator_cpus < 1.0
    grows = share(cpus=8.0, actors=2, max_actors=8, cpus_per_actor=3.0, may_grow=True)
    assert (grows.generator_cpus, grows.generator_threads) == (3.0, 4)
    assert share(actors=3).max_generators == 3


def test_a_gpu_is_taken_where_there_is_one():
    made = share(gpus=1.0, gpus_per_actor=None)
    assert made.generator_gpus == 1.0
    assert made.generator_threads is None
    assert share(gpus=0.0, gpus_per_actor=None).generator_gpus == 0.0


def test_gpus_that_will_never_come_are_refused_with_three_ways_out():
    with pytest.raises(SharesError, match=r"4 actors with 1 GPUs each need 4 GPUs.*are 2 here"):
        share(actors=4, gpus_per_actor=1.0, gpus=2.0)
    assert share(actors=4, gpus_per_actor=1.0, gpus=2.0, may_grow=True).generator_gpus == 1.0
