"""The catalog: names to files, in YAML or Parquet, with every mistake told."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from input_kit import write_catalog

from manifests.loras.catalog import LoraCatalog, read_lora_catalog
from manifests.loras.files import LoraFiles


def catalog_of(tmp_path: Path, *entries: object) -> LoraCatalog:
    path = tmp_path / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": list(entries)}, sort_keys=False))
    return read_lora_catalog(str(path))


def entry(**changes: object) -> dict:
    return {"name": "cat", "uri": "cat.safetensors", "subject": "cat"} | changes


def test_files_are_relative_to_the_catalog(tmp_path):
    catalog = catalog_of(
        tmp_path,
        entry(),
        entry(name="far", uri="s3://bucket/far.safetensors"),
        entry(name="up", uri="../up.safetensors"),
    )
    assert not catalog.problems
    assert catalog["cat"].uri == str(tmp_path / "cat.safetensors")
    assert catalog["far"].uri == "s3://bucket/far.safetensors"
    assert catalog["up"].uri == str(tmp_path.parent / "up.safetensors")


def test_yaml_and_parquet_say_the_same(tmp_path):
    entries = [
        entry(weight=0.5, kind="concept"),
        entry(name="ink", uri="ink.safetensors", kind="style"),
    ]
    path = tmp_path / "loras.parquet"
    pq.write_table(pa.Table.from_pylist(entries), path)
    assert read_lora_catalog(str(path)).entries == catalog_of(tmp_path, *entries).entries


@pytest.mark.parametrize(
    ("wrong", "field", "sentence"),
    [
        (entry(name="a;b"), "name", "should be a name without ; | : ,"),
        (entry(name=" a"), "name", "outer spaces"),
        ({"uri": "x", "subject": "cat"}, "name", "is required"),
        (entry(kind="stile"), "kind", "'concept' or 'style', got 'stile'"),
        (entry(weight="much"), "weight", "got 'much'"),
        (entry(weight=float("nan")), "weight", "finite"),
        (entry(sha256="12"), "sha256", "64 hexadecimal digits"),
        ({"name": "cat", "uri": "x", "sbject": "cat"}, "sbject", "did you mean 'subject'?"),
        ("cat", "(entry)", "should be a mapping"),
    ],
)
def test_a_wrong_entry_is_told_with_its_line_and_the_others_stay(tmp_path, wrong, field, sentence):
    catalog = catalog_of(tmp_path, entry(name="good"), wrong)
    assert "good" in catalog
    (problem,) = catalog.problems
    assert problem.field == field
    assert sentence in problem.problem
    assert problem.line == 5
    assert "LoRA" in str(problem)


def test_a_name_used_twice_is_told(tmp_path):
    (problem,) = catalog_of(tmp_path, entry(), entry(uri="other.safetensors")).problems
    assert "is used twice, got 'cat'" in problem.problem


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("loras:\n  - name: [", "line 2"),
        ("loras:\n  - name: a\n    name: b", "line 3: is not valid YAML: 'name' is given twice"),
        ("a: 1", "a list under 'loras:'"),
        ("", "a list under 'loras:'"),
        ("- a\n- b", "a list under 'loras:'"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_catalog_is_told(tmp_path, text, sentence):
    path = tmp_path / "loras.yaml"
    path.write_text(text)
    (problem,) = read_lora_catalog(str(path)).problems
    assert sentence in problem.problem


def test_a_missing_catalog_is_told(tmp_path):
    (problem,) = read_lora_catalog(str(tmp_path / "none.yaml")).problems
    assert "does not exist" in problem.problem


def test_a_file_with_another_sha256_than_the_catalogs_is_told(tmp_path):
    write_catalog(tmp_path, ["cat"], styles=[])
    named = catalog_of(tmp_path, entry(sha256="0" * 64))["cat"]
    state = LoraFiles().state(named)
    assert "the catalog says 0000" in (state.problem or "")
    assert state.digest.startswith("broken:")


def test_a_file_is_looked_at_once(tmp_path):
    catalog = read_lora_catalog(str(write_catalog(tmp_path)))
    files = LoraFiles()
    before = files.state(catalog["cat"])
    (tmp_path / "cat.safetensors").unlink()
    assert files.state(catalog["cat"]) is before
    assert files.broken == ()
