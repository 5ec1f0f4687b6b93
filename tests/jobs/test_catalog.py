"""Catalogs, rendered by a fake engine on a real Ray: what changed is made, and nothing else."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from engine_kit import FakeModelHostSource
from input_kit import write_base_model, write_catalog, write_lora

from jobs.commands.catalog import catalog
from jobs.job.catalog_spec import load_catalog, prepare_catalog
from jobs.job.run_request import run_request
from manifests.text.problems import InputError
from pipelines.outputs.editions import edition_name
from pipelines.request import RunRequest
from pipelines.storage.local import LocalStorage

NUM_ITEMS = 40
FOX_EVERY = 20


def items(count: int = NUM_ITEMS) -> list[dict[str, Any]]:
    """Return items, every twentieth of which is a fox and the rest cats."""
    return [
        {
            "item": f"i{n}",
            "loras": ["fox" if n % FOX_EVERY == 0 else "cat"],
            "subject": "fox" if n % FOX_EVERY == 0 else "cat",
            "place": f"place {n}",
        }
        for n in range(count)
    ]


def write_spec(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """Write a catalog's spec with what it names."""
    if not (folder / "base").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_catalog(folder / "loras", ["cat", "dog", "fox"])
        write_base_model(folder / "base")
    (folder / "items.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    values = {
        "items": "items.jsonl",
        "scenes": [{"scene": "studio", "prompt": "a {subject} at {place}", "method": "single"}],
        "loras": "loras/loras.yaml",
        "output": "out",
        "base_model": "base",
        "resources": {"rows_per_unit": 25},
    } | settings
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def fakes(log: Path) -> Callable[..., RunRequest]:
    def make(*arguments: Any) -> RunRequest:
        return replace(run_request(*arguments), load_model_host=FakeModelHostSource(log))

    return make


def num_sampled(log: Path) -> int:
    """Return how many rows the engine was given so far."""
    return sum(len(line.split()) - 1 for line in log.read_text().splitlines())


def edition(folder: Path, number: int) -> dict[str, dict[str, Any]]:
    table = pq.read_table(folder / "out" / edition_name(number))
    return {row["row_id"]: row for row in table.to_pylist()}


def latest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/latest.json").read_text())


@dataclass(frozen=True, kw_only=True)
class Night:
    """What one run of the catalog did."""

    code: int
    said: str
    num_made: int
    latest: dict[str, Any]
    flipped_at_ns: int


@dataclass(frozen=True, kw_only=True)
class Nights:
    """Three runs of one catalog: the first, one after a change, one that a schedule doubled."""

    folder: Path
    first: Night
    changed: Night
    doubled: Night
    affected: set[str]
    first_edition: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def nights(engine_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Nights:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("nights")
    log, rows = folder / "calls", items()
    log.touch()
    spec = write_spec(folder, rows)

    def night() -> Night:
        before, said = num_sampled(log), io.StringIO()
        with redirect_stdout(said):
            code = catalog(spec, make_request=fakes(log))
        return Night(
            code=code,
            said=said.getvalue(),
            num_made=num_sampled(log) - before,
            latest=latest(folder),
            flipped_at_ns=(folder / "out/latest.json").stat().st_mtime_ns,
        )

    first, first_edition = night(), edition(folder, 1)
    # One LoRA and ten prompts of items without it; what is affected is told by the definition.
    write_lora(folder / "loras/fox.safetensors", seed=99)
    for row in [row for row in rows if row["subject"] == "cat"][:10]:
        row["place"] = f"new {row['place']}"
    affected = {
        f"{new['item']}/studio/plain/0"
        for new, old in zip(rows, items(), strict=True)
        if new != old or "fox" in new["loras"]
    }
    write_spec(folder, rows)
    return Nights(
        folder=folder,
        first=first,
        changed=night(),
        doubled=night(),
        affected=affected,
        first_edition=first_edition,
    )


@pytest.mark.ray
def test_the_first_night_makes_and_publishes_every_row(nights: Nights):
    assert (nights.first.code, nights.first.num_made) == (0, NUM_ITEMS)
    assert f"edition 1 is the latest: {NUM_ITEMS} added, 0 changed, 0" in nights.first.said


@pytest.mark.ray
def test_the_rows_that_a_change_reaches_are_made_anew_and_no_others(nights: Nights):
    assert len(nights.affected) == 10 + NUM_ITEMS // FOX_EVERY
    assert (nights.changed.code, nights.changed.num_made) == (0, len(nights.affected))
    second = edition(nights.folder, 2)
    keys = {name: row["key"] for name, row in nights.first_edition.items()}
    assert {name for name, row in second.items() if row["key"] != keys[name]} == nights.affected


@pytest.mark.ray
def test_a_change_is_published_as_the_next_edition_and_said_in_numbers(nights: Nights):
    changes = f"0 added, {len(nights.affected)} changed, 0 removed"
    assert f"edition 2 is the latest: {changes}" in nights.changed.said
    assert nights.changed.latest["number"] == 2
    assert nights.changed.flipped_at_ns != nights.first.flipped_at_ns


@pytest.mark.ray
def test_a_schedule_that_fires_twice_makes_nothing_and_touches_nothing(nights: Nights):
    assert (nights.doubled.code, nights.doubled.num_made) == (0, 0)
    assert "edition 2 is the latest already; nothing changed" in nights.doubled.said
    assert nights.doubled.flipped_at_ns == nights.changed.flipped_at_ns


@pytest.mark.ray
def test_a_past_edition_reads_with_every_image_as_it_was(nights: Nights):
    assert edition(nights.folder, 1) == nights.first_edition
    storage = LocalStorage(nights.folder / "out")
    for number in (1, 2):
        for row in edition(nights.folder, number).values():
            assert hashlib.sha256(storage.read(row["image"])).hexdigest() == row["image_sha256"]


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_row_that_fails_keeps_the_former_edition_unless_it_may_be_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "calls"
    rows = items(3)
    spec = write_spec(tmp_path, rows)
    assert catalog(spec, make_request=fakes(log)) == 0
    (tmp_path / "loras/fox.safetensors").write_bytes(b"cut off")
    rows.append({"item": "i9", "loras": ["cat"], "subject": "cat", "place": "home"})
    write_spec(tmp_path, rows)
    capsys.readouterr()
    assert catalog(spec, make_request=fakes(log)) == 1
    told = capsys.readouterr().out
    assert "not published: 1 rows have no image (i0/studio/plain/0) and may_miss is 0" in told
    assert latest(tmp_path)["number"] == 1

    write_spec(tmp_path, rows, may_miss=1)
    assert catalog(spec, make_request=fakes(log)) == 1
    assert "1 added, 0 changed, 1 removed" in capsys.readouterr().out
    facts = latest(tmp_path)
    assert (facts["number"], facts["num_rows"], facts["num_missing"]) == (2, 3, 1)


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_a_job_file_is_a_catalog_of_its_manifest(tmp_path: Path):
    spec = write_spec(tmp_path, items(2))
    values = yaml.safe_load(spec.read_text())
    del values["items"], values["scenes"]
    rows = [{"row_id": "a", "prompt": "a cat", "loras": ["cat"], "seed": 1, "method": "single"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({**values, "manifest": "rows.jsonl"}))
    assert catalog(job, make_request=fakes(tmp_path / "calls")) == 0
    assert list(edition(tmp_path, 1)) == ["a"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"items": "none.csv"}, "none.csv does not exist"),
        ({"manifest": "rows.jsonl"}, "stands beside items or scenes"),
        ({"scenes": None}, "scenes: is missing"),
        ({"seeds": [1, -1]}, "seeds"),
        ({"keeep": 3}, "keeep"),
        (
            {"scenes": [{"scene": "s", "prompt": "a {subjekt}"}]},
            "{subjekt} is no column of the items; did you mean 'subject'?",
        ),
        ({"looks": {"ink": ["nobody"]}}, "row 'i0/studio/ink/0'"),
    ],
)
def test_a_bad_spec_ends_with_2_and_a_sentence_and_writes_nothing(
    tmp_path: Path, settings: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
):
    spec = write_spec(tmp_path, items(1), **settings)
    assert catalog(spec) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_catalog_runs_as_a_module_too(tmp_path: Path):
    spec = write_spec(tmp_path, [])
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "catalog", str(spec)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "items: should not be empty" in done.stderr


def test_items_and_scenes_may_name_their_base_model(tmp_path: Path):
    items = [
        {"item": "mug", "loras": "cat", "subject": "cat", "place": "home", "base_model": "big"},
        {"item": "hat", "loras": "cat", "subject": "cat", "place": "home"},
    ]
    write_base_model(tmp_path / "other", sample_size=32)
    path = write_spec(tmp_path, items, base_models={"big": "other"})
    rows = prepare_catalog(load_catalog(path), place=str(path)).rows
    assert [row.width for row in rows] == [256, 128]


def test_an_item_of_a_table_that_is_no_mapping_is_a_problem_of_its_line(tmp_path: Path):
    spec = write_spec(tmp_path, [], items="things.yaml")
    (tmp_path / "things.yaml").write_text("items:\n- {item: mug}\n- hat\n")
    with pytest.raises(InputError) as raised:
        load_catalog(spec)
    (problem,) = raised.value.problems
    assert (problem.place, problem.line) == (str(tmp_path / "things.yaml"), 3)
    assert problem.problem == "should be a mapping with item, got 'hat'"


@pytest.mark.parametrize("kind", ["csv", "yaml", "parquet"])
def test_items_are_read_from_every_kind_of_table(tmp_path: Path, kind: str):
    import pyarrow as pa

    from manifests.grid.axes import expand_axes

    rows = [{"item": "mug", "loras": "cat;dog", "subject": "cat", "place": "home"}]
    file = tmp_path / f"things.{kind}"
    spec = write_spec(tmp_path, rows, items=file.name)
    if kind == "csv":
        file.write_text("item,loras,subject,place\nmug,cat;dog,cat,home\n")
    elif kind == "yaml":
        file.write_text(yaml.safe_dump({"items": rows}))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    axes = load_catalog(spec).axes
    assert axes is not None
    (row,) = expand_axes(axes)
    assert row["loras"] == [{"lora": "cat"}, {"lora": "dog"}]
    assert row["prompt"] == "a cat at home"
