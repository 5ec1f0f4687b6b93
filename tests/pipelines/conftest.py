"""A cluster on which the fakes of ``engine_kit`` can run."""

from collections.abc import Iterator

import engine_kit
import pytest


@pytest.fixture
def engine_cluster(ray_cluster: None) -> Iterator[None]:
    """The session's Ray; the fakes travel by value, because workers cannot import the tests."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(engine_kit)
    yield ray_cluster
    cloudpickle.unregister_pickle_by_value(engine_kit)
