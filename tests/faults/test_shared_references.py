"""Runs that share a folder of references, as processes, one of which is killed."""

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from faults.kit import Drivers, Record, Sum, said

from pipelines.leases.makers import live_makers
from pipelines.ledger.ledger import read_ledger
from pipelines.planning.references import SEEDS_PER_BLOCK
from pipelines.storage.storage import Storage, open_storage
from pipelines.upkeep.verify import verify_units

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NUM_LORAS = 2
NUM_REFERENCES = 60
NUM_ROWS = 3
MOST_BEGUN_ON_RAY = 6
"""Units of one actor that are begun and not committed: some wait between stages."""


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when an image file of a folder is written again, by name."""
    stats = {path.name: path.stat() for path in folder.glob("images/*/[!.]*.png")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize(
    ("is_inline", "num_rounds"),
    [
        pytest.param(True, 1, id="three-processes"),
        pytest.param(True, 12, id="twelve-times", marks=pytest.mark.faults),
        pytest.param(False, 1, id="on-ray", marks=pytest.mark.faults),
    ],
)
def test_three_runs_with_other_unit_sizes_make_every_reference_once_though_one_is_killed(
    drivers: Callable[..., Drivers],
    record: Record,
    tmp_path: Path,
    is_inline: bool,
    num_rounds: int,
):
    chance = random.Random(num_rounds)
    made = lost = waste = doubled = 0
    problems: list[str] = []
    for number in range(num_rounds):
        shared = tmp_path / f"shared-{number}"
        ran = drivers(
            num_rows=NUM_ROWS,
            is_inline=is_inline,
            num_references=NUM_REFERENCES,
            references_at=str(shared),
            seconds_a_row=0.02 if is_inline else 0.2,
            log=str(tmp_path / f"calls-{number}"),
        )
        outs = {size: str(tmp_path / f"out-{number}-{size}") for size in (3, 5, 8)}
        started = {
            size: ran.start(out=out, rows_per_unit=size, num_references=NUM_REFERENCES - size)
            for size, out in outs.items()
        }
        while len(list(shared.glob("rows/unit-*"))) < chance.randint(3, 12):
            time.sleep(0.01)
        early = written(shared)
        time.sleep(chance.uniform(0.0, 0.1))
        started[5].send_signal(signal.SIGKILL)
        assert said(started[5])["outcome"] == "died"
        for size in (3, 8):
            account = said(started[size])
            assert (account["outcome"], account["num_made"]) == ("finished", NUM_ROWS)
        storage = open_storage(str(shared))
        ledger = read_ledger(storage)
        assert live_makers(storage) == []
        late = written(shared)
        assert early.items() <= late.items(), "an image was written again"
        problems += [text for check in verify_units(storage) for text in check.problems]
        made += len(ledger.made)
        lost += NUM_LORAS * NUM_REFERENCES - len(ledger.made)
        doubled += ledger.num_doubled
        again, taken_over = computed_again(Path(ran.settings.log)), holders_before_the_last(storage)
        assert len(set(taken_over)) <= 1, "only the killed run is taken over"
        assert again <= SEEDS_PER_BLOCK * len(taken_over), "nothing is made twice while claimed"
        waste += again
        # The killed run's own rows are made by the same command, from the same references.
        before = set(storage.walk(""))
        assert ran.run(out=outs[5], rows_per_unit=5)["num_made"] == NUM_ROWS
        assert {name for name in before if not name.startswith("claims")} <= set(storage.walk(""))
        assert read_ledger(storage).made == ledger.made
    ran.num_runs = 4 * num_rounds
    total = Sum(
        num_rows=num_rounds * NUM_LORAS * NUM_REFERENCES,
        made=made,
        failed=0,
        lost=lost,
        doubled=doubled,
        waste=waste,
        problems=tuple(problems),
    )
    where = "" if is_inline else ", on Ray"
    what = f"three runs share references, one killed{where}, {num_rounds} time(s)"
    # Without Ray one unit is begun at a time.
    units_begun = 1 if is_inline else MOST_BEGUN_ON_RAY
    record(what, ran, total, num_rounds * units_begun * SEEDS_PER_BLOCK)


def holders_before_the_last(storage: Storage) -> list[str]:
    """Return which run held each unit that another one claimed after it."""
    names = sorted(storage.walk("claims"))
    followed = [one for one, two in pairwise(names) if Path(one).parent == Path(two).parent]
    return [json.loads(storage.read(name))["run_id"] for name in followed]


def computed_again(log: Path) -> int:
    """Return how many references were computed beyond once each.

    Seeds below ``NUM_ROWS`` are rows' too, so they are left out; the others come once a LoRA.
    """
    seeds = Counter(seed for line in log.read_text().splitlines() for seed in line.split()[1:])
    references = {seed: count for seed, count in seeds.items() if int(seed) >= NUM_ROWS}
    assert len(references) == NUM_REFERENCES - NUM_ROWS
    return sum(references.values()) - NUM_LORAS * len(references)
