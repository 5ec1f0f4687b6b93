from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from input_kit import write_base_model, write_lora
from testbed_kit import GROUPS, concept, together, write_composlora, write_customconcept101

from jobs.commands.sweep import CATALOG_NAME, JOB_NAME, MANIFEST_NAME, sweep
from jobs.commands.validate import validate
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from manifests.places.allowed_roots import VARIABLE

EXAMPLE = Path(__file__).parents[2] / "examples" / "composlora.yaml"


def write(folder: Path, block: dict[str, Any], **values: Any) -> Path:
    write_base_model(folder / "base")
    path = folder / "sweep.yaml"
    given = {"output": "out", "base_model": "base", "scoring": {"references": 0}}
    path.write_text(yaml.safe_dump({**given, "testbed": block, **values}))
    return path


def of_composlora(folder: Path, **values: Any) -> Path:
    block = {"composlora": write_composlora(folder).name, "loras": "loras", "prefix": "sharp"}
    block |= {"sizes": [2, 3], "weight": 0.8}
    return write(folder, block, **{"negative_prompt": "", **values})


def write_loras(folder: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        write_lora(folder / f"{name}.safetensors", seed=seed)


def test_a_testbed_becomes_a_job_that_validates_and_can_be_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = of_composlora(tmp_path, methods=["merge", "switch", "clora"], seeds=[111])
    write_loras(tmp_path / "loras", [each["id"] for group in GROUPS.values() for each in group])
    assert sweep(path) == 0
    # With a character: one of 1 + 2 + 1 others, or two of different groups: 1*2 + 1*1 + 2*1.
    assert "54 rows: 18 LoRA set(s)" in capsys.readouterr().out
    out = tmp_path / "out"
    assert validate(out / JOB_NAME) == 0
    rows = prepare(load_job(out / JOB_NAME)).rows
    assert len({row.key for row in rows}) == 54
    assert {lora.weight for row in rows for lora in row.loras} == {0.8}
    assert {row.method for row in rows} == {"merge", "switch", "clora"}
    files = {name: (out / name).read_bytes() for name in (JOB_NAME, MANIFEST_NAME, CATALOG_NAME)}
    assert sweep(path) == 0
    assert files == {name: (out / name).read_bytes() for name in files}


def test_missing_lora_files_are_told_by_name_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = of_composlora(tmp_path)
    write_loras(tmp_path / "loras", ["style_1"])
    assert sweep(path) == 0
    assert validate(tmp_path / "out" / JOB_NAME) == 2
    told = capsys.readouterr().err
    names = {each["id"] for group in GROUPS.values() for each in group} - {"style_1"}
    assert all(f"LoRA {name!r}: {tmp_path}/loras/{name}.safetensors" in told for name in names)
    assert "'style_1'" not in told


def test_concepts_fill_the_templates_of_their_sets(tmp_path: Path):
    cat, owl = concept("cat_1", "cat"), concept("owl_1", "barn owl", 2)
    list_file = write_customconcept101(tmp_path / "lists", [together(cat, owl), together(owl, cat)])
    write_loras(tmp_path / "loras", ["cat_1", "owl_1"])
    block = {"customconcept101": f"lists/{list_file.name}", "loras": "loras"}
    path = write(tmp_path, block, methods=["clora"])
    assert sweep(path) == 0
    assert validate(tmp_path / "out" / JOB_NAME) == 0
    rows = pq.read_table(tmp_path / "out" / MANIFEST_NAME).to_pylist()
    assert [(row["loras"], row["prompt"]) for row in rows] == [
        ("cat_1;owl_1", "a cat beside a barn owl"),
        ("cat_1;owl_1", "barn owl looks at the cat."),
        ("owl_1;cat_1", "a barn owl beside a cat"),
        ("owl_1;cat_1", "cat looks at the barn owl."),
    ]


def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pair = together(concept("cat_1", "cat"), concept("owl_1", "barn owl", 2))
    two = ["a {0} beside a {1}", "a {0} alone"]
    list_file = write_customconcept101(tmp_path / "lists", [pair], two=two)
    block = {"customconcept101": f"lists/{list_file.name}", "loras": "loras", "skip_unfit": True}
    path = write(tmp_path, block, methods=["clora"])
    assert sweep(path) == 0
    told = capsys.readouterr()
    assert "1 rows: 1 LoRA set(s), 1 prompt(s)" in told.out
    assert "left out 1 prompt(s) of the testbed, as skip_unfit says:" in told.err
    assert "two.txt, line 2: 'a {0} alone' has no {1}" in told.err
    write_customconcept101(tmp_path / "lists", [pair], two=two[1:])
    assert sweep(path) == 2
    assert "testbed: leaves no composition: all 1 prompt(s) are left out" in capsys.readouterr().err


def test_problems_of_list_block_and_sweep_come_in_one_go_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = of_composlora(tmp_path, loras="emoji-world", methods=["mergee"])
    write_composlora(tmp_path, {**GROUPS, "object": [{"id": "kite"}]})
    values = yaml.safe_load(path.read_text())
    del values["negative_prompt"]
    path.write_text(yaml.safe_dump(values))
    assert sweep(path) == 2
    told = capsys.readouterr().err
    for part in (
        "mill_lora_info.json: 1 problem(s)",
        "object[0].trigger: is required and not given",
        "loras: stands beside testbed, which brings its own LoRAs",
        "negative_prompt: is required with composlora",
        "methods: 'mergee' is no method",
    ):
        assert part in told
    assert not (tmp_path / "out").exists()


def test_a_catalog_that_somebody_wrote_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = of_composlora(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CATALOG_NAME).write_text("loras: []\n")
    assert sweep(path) == 2
    assert "loras.yaml was not written by `clora sweep`" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == [CATALOG_NAME]


def test_list_and_lora_files_outside_of_what_a_service_allows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setenv(VARIABLE, str(inside))
    path = of_composlora(inside)
    values = yaml.safe_load(path.read_text())
    values["testbed"]["loras"] = str(tmp_path / "elsewhere")
    path.write_text(yaml.safe_dump(values))
    assert sweep(path) == 2
    assert "testbed.loras: LoRA 'character_1': " in capsys.readouterr().err
    values["testbed"]["composlora"] = str(write_composlora(tmp_path))
    path.write_text(yaml.safe_dump(values))
    assert sweep(path) == 2
    assert f"{tmp_path}/mill_lora_info.json" in capsys.readouterr().err


def test_the_example_has_the_published_settings_and_asks_for_the_texts_that_are_not_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert sweep(EXAMPLE) == 2
    assert "testbed: needs prefix" in capsys.readouterr().err
    values = yaml.safe_load(EXAMPLE.read_text())
    values["testbed"] |= {"composlora": write_composlora(tmp_path).name, "prefix": "sharp"}
    values |= {"output": "out", "negative_prompt": "blurred"}
    values["testbed"]["sizes"] = [2, 3, 4]
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(values))
    assert sweep(path) == 0
    job = load_job(tmp_path / "out" / JOB_NAME)
    config = job.sampler_config()
    assert (config.scheduler, config.num_steps, config.guidance_scale) == ("dpmpp", 100, 7.0)
    assert config.switch_as_published
    rows = pq.read_table(tmp_path / "out" / MANIFEST_NAME).to_pylist()
    assert {row["method"] for row in rows} == {"merge", "composite", "switch"}
    assert {(row["width"], row["height"], row["seed"]) for row in rows} == {(768, 1024, 111)}
    assert {name.partition(":")[2] for row in rows for name in row["loras"].split(";")} == {"0.8"}
