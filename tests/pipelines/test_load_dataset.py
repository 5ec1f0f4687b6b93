"""``datasets.load_dataset`` on an output gives the rows that are there, whatever it loaded before.

With a cache as people have it: one for all folders, and no argument that says where.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, FakeModelHostSource, Watcher, request, row, rows
from inline_engine import run_inline

from clora_core.recipe.row import Row
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs import publish
from pipelines.outputs.card_stamp import stamp_of
from pipelines.outputs.data_card import MARK
from pipelines.run import compose_rows
from pipelines.session.resources import Resources
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_unit import ROWS_FOLDER
from pipelines.units.output_table import read_output_rows
from pipelines.units.receipts import Receipt
from pipelines.upkeep.repair import repair_output

TIMES = LeaseTimes(beat_s=1000.0, silence_s=0.0)

Load = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return the row ids that ``load_dataset`` gives, sorted, with one cache for the whole test."""
    datasets = pytest.importorskip("datasets")
    # What HF_HOME sets when the library is imported, which another test may have done.
    cache = tmp_path / "hf" / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", cache / "downloads")

    def loaded(*arguments: Any, **options: Any) -> list[str]:
        data = datasets.load_dataset(*arguments, split="train", **options)
        return sorted(sample["row_id"] for sample in data.select_columns(["row_id"]))

    return loaded


def compose(out: Path, manifest: Sequence[Row], observer: Watcher | None = None) -> None:
    asked = request(
        out, manifest, lease_times=TIMES, resources=Resources(rows_per_unit=1),
        load_model_host=FakeModelHostSource(), load_scorer=None,
    )  # fmt: skip
    compose_rows(asked, observer or Watcher(), address=None)


class Killed(BaseException):
    """The driver's end, as a kill: nothing is written after it."""


class Killer(Watcher):
    """Ends the run after some units, before it can write what it leaves."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self._num_units = num_units

    def stored(self, receipt: Receipt) -> None:
        super().stored(receipt)
        if len(self.receipts) == self._num_units:
            raise Killed


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


def committed(out: Path) -> list[str]:
    """Return the row ids that are committed, sorted."""
    return sorted(read_output_rows(LocalStorage(out), ["row_id"])["row_id"].to_pylist())


def killed(out: Path, manifest: Sequence[Row], killer: Killer) -> None:
    """Compose until the killer ends it, and leave the output as a kill would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.run_phases.Run.finish", lambda *_: None)
        with pytest.raises(Killed):
            compose(out, manifest, killer)


def test_every_resume_and_every_output_of_the_same_name_gives_its_own_rows(
    tmp_path: Path, load: Load
):
    one, other = tmp_path / "one" / "out", tmp_path / "other" / "out"
    compose(one, rows(1))
    assert load(str(one)) == ["row-0"]
    compose(one, rows(3))
    assert load(str(one)) == ["row-0", "row-1", "row-2"]
    compose(other, [row(7), row(8, prompt=BAD_ROW)])
    assert load(str(other)) == ["row-7"]
    assert load(str(other), "scores") == ["row-7"]
    assert load(str(other), "errors") == ["row-8"]
    # From the cache, both.
    assert load(str(one)) == ["row-0", "row-1", "row-2"]
    assert load(str(other)) == ["row-7"]


def test_streams_and_plain_parquet_give_the_same(tmp_path: Path, load: Load):
    out = tmp_path / "out"
    for num_rows in (1, 2):
        compose(out, rows(num_rows))
        wanted = [f"row-{index}" for index in range(num_rows)]
        assert load(str(out)) == wanted
        assert load(str(out), streaming=True) == wanted
        assert load("parquet", data_files=f"{out}/rows/*.parquet") == wanted


def test_a_killed_run_gives_what_it_committed_and_its_resume_all(tmp_path: Path, load: Load):
    out = tmp_path / "out"
    # The first run: there is no card before it.
    killed(out, rows(4), Killer(2))
    assert load(str(out)) == committed(out)
    killed(out, rows(4), Killer(1))
    assert load(str(out)) == committed(out)
    assert len(committed(out)) == 3
    compose(out, rows(4))
    assert load(str(out)) == [f"row-{index}" for index in range(4)]


@pytest.mark.parametrize("is_restamped", [True, False])
def test_a_look_while_a_run_works_is_renewed_by_its_next_stamp_by_request_and_by_the_next_run(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch, is_restamped: bool
):
    monkeypatch.setattr(publish, "RESTAMP_S", 0.0 if is_restamped else 1000.0)
    out = tmp_path / "out"
    looks: list[list[str]] = []

    class Looks(Killer):
        def stored(self, receipt: Receipt) -> None:
            if not self.receipts:
                looks.append(load(str(out)))
            super().stored(receipt)

    killed(out, rows(2), Looks(2))
    assert [len(look) for look in looks] == [1]
    assert len(committed(out)) == 2
    # All is made, but the card is not that of what is made.
    assert len(load(str(out))) == (2 if is_restamped else 1)
    anew = {"download_mode": "force_redownload", "verification_mode": "no_checks"}
    assert load(str(out), **anew) == committed(out)
    compose(out, rows(2))
    assert load(str(out)) == committed(out)


def test_rows_that_a_repair_set_aside_are_gone(tmp_path: Path, load: Load):
    out = tmp_path / "out"
    compose(out, rows(3))
    assert len(load(str(out))) == 3
    storage = LocalStorage(out)
    unit = storage.list(ROWS_FOLDER, ".parquet")[0]
    (out / unit).write_bytes(b"damaged")
    assert repair_output(storage, times=TIMES, note=print).num_units == 1
    assert len(load(str(out))) == 2
    compose(out, rows(3))
    assert len(load(str(out))) == 3


def test_a_copy_loads_the_same_and_a_card_of_earlier_releases_is_replaced(
    tmp_path: Path, load: Load
):
    out, copy = tmp_path / "out", tmp_path / "copy" / "out"
    compose(out, rows(2))
    shutil.copytree(out, copy)
    assert load(str(copy)) == load(str(out)) == ["row-0", "row-1"]
    lines = (out / "README.md").read_text().split("\n")
    old = "\n".join(line for line in lines if not line.startswith("  description:"))
    (out / "README.md").write_text(old)
    assert stamp_of(old) is None
    compose(out, rows(2))
    stamp = stamp_of((out / "README.md").read_text())
    assert stamp is not None
    assert stamp == stamp_of((copy / "README.md").read_text())


def test_nothing_is_written_where_all_is_there_and_nothing_of_anyone_elses_card(tmp_path: Path):
    out = tmp_path / "out"
    compose(out, rows(2))

    def files() -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.read_bytes())
            for path in out.rglob("*")
            if path.is_file()
        }

    before = files()
    compose(out, rows(2))
    assert files() == before
    (out / "README.md").write_text("# Mine\n")
    compose(out, rows(3))
    assert (out / "README.md").read_text() == "# Mine\n"
    assert len(read_ledger(LocalStorage(out)).made) == 3
    assert MARK not in (out / "README.md").read_text()
