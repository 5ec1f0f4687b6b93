"""Catalogs, rendered by a fake engine on a real Ray: what changed is made, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_kit
import pyarrow.parquet as pq
import pytest
import yaml
from engine_kit import FakeEngineSource
from input_kit import write_base_model, write_catalog, write_lora

from jobs.catalog import catalog
from jobs.catalog_spec import load_catalog, prepare_catalog
from jobs.run_request import run_request
from pipelines.editions import edition_name
from pipelines.request import RunRequest
from pipelines.storage import LocalStorage

NUM_ITEMS = 200
FOX_EVERY = 20


@pytest.fixture
def engine_cluster(ray_cluster: None) -> Any:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(engine_kit)
    yield ray_cluster
    cloudpickle.unregister_pickle_by_value(engine_kit)


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
        return replace(run_request(*arguments), load_engine=FakeEngineSource(log))

    return make


def num_sampled(log: Path) -> int:
    """Return how many rows the engine was given so far."""
    return sum(len(line.split()) - 1 for line in log.read_text().splitlines())


def edition(folder: Path, number: int) -> dict[str, dict[str, Any]]:
    table = pq.read_table(folder / "out" / edition_name(number))
    return {row["row_id"]: row for row in table.to_pylist()}


def latest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out/latest.json").read_text())


@pytest.mark.ray
@pytest.mark.usefixtures("engine_cluster")
def test_of_two_hundred_items_the_changed_ones_are_made_and_latest_flips_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    log = tmp_path / "calls"
    rows = items()
    spec = write_spec(tmp_path, rows)
    assert catalog(spec, make_request=fakes(log)) == 0
    assert "edition 1 is the latest: 200 added, 0 changed, 0 removed" in capsys.readouterr().out
    assert num_sampled(log) == NUM_ITEMS
    flips = [(tmp_path / "out/latest.json").stat().st_mtime_ns]
    first = edition(tmp_path, 1)

    # One LoRA and ten prompts of items without it; what is affected is told by the definition.
    write_lora(tmp_path / "loras/fox.safetensors", seed=99)
    for row in [row for row in rows if row["subject"] == "cat"][:10]:
        row["place"] = f"new {row['place']}"
    affected = {
        f"{new['item']}/studio/plain/0"
        for new, old in zip(rows, items(), strict=True)
        if new != old or "fox" in new["loras"]
    }
    assert len(affected) == 10 + NUM_ITEMS // FOX_EVERY
    write_spec(tmp_path, rows)
    assert catalog(spec, make_request=fakes(log)) == 0
    assert num_sampled(log) == NUM_ITEMS + len(affected)
    second = edition(tmp_path, 2)
    assert {name for name in second if second[name]["key"] != first[name]["key"]} == affected
    assert "edition 2 is the latest: 0 added, 20 changed, 0 removed" in capsys.readouterr().out
    flips.append((tmp_path / "out/latest.json").stat().st_mtime_ns)
    assert latest(tmp_path)["number"] == 2

    # A schedule that fires twice makes nothing, publishes nothing and touches nothing.
    assert catalog(spec, make_request=fakes(log)) == 0
    assert num_sampled(log) == NUM_ITEMS + len(affected)
    assert "edition 2 is the latest already; nothing changed" in capsys.readouterr().out
    flips.append((tmp_path / "out/latest.json").stat().st_mtime_ns)
    assert flips[0] != flips[1] == flips[2]

    # The former edition reads, with every image as it was.
    assert edition(tmp_path, 1) == first
    storage = LocalStorage(tmp_path / "out")
    for row in [*first.values(), *second.values()]:
        assert (
            engine_kit.hashlib.sha256(storage.read(row["image"])).hexdigest()
            == (row["image_sha256"])
        )


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


@pytest.mark.parametrize("kind", ["csv", "yaml", "parquet"])
def test_items_are_read_from_every_kind_of_table(tmp_path: Path, kind: str):
    import pyarrow as pa

    from manifests.grid_axes import expand_axes

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
