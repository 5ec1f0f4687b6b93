"""A drafted catalog entry is read back as what it says, whatever the metadata hold."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import kohya_tensors, safetensors_bytes

from manifests.loras.about.catalog_entry import catalog_entry, catalog_name
from manifests.loras.about.report import LoraReport, lora_report
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles


def report(folder: Path, **metadata: str) -> LoraReport:
    path = folder / "x.safetensors"
    path.write_bytes(safetensors_bytes(kohya_tensors(), metadata=metadata or {"format": "pt"}))
    return lora_report(path)


def read_back(folder: Path, *entries: str):
    path = folder / "loras.yaml"
    path.write_text("loras:\n" + "".join(entries), encoding="utf-8")
    catalog = read_lora_catalog(str(path))
    assert not catalog.problems, [str(problem) for problem in catalog.problems]
    return catalog


def test_metadata_become_defaults(tmp_path):
    found = report(
        tmp_path,
        ss_output_name="my cat: v2",
        ss_tag_frequency=json.dumps({"10_sks cat": {"sks cat": 12}}),
        **{"modelspec.license": "CC-BY-4.0"},
    )
    name = catalog_name(found)
    entry = read_back(tmp_path, catalog_entry(found, name=name))[name]
    assert entry.name == "my-cat-v2"
    assert (entry.kind, entry.subject, entry.trigger) == ("concept", "cat", "sks")
    assert entry.license == "CC-BY-4.0"
    assert entry.sha256 == found.info.file_sha256
    assert LoraFiles().state(entry).problem is None


def test_without_a_noun_the_entry_is_a_style_that_a_row_can_use(tmp_path):
    found = report(tmp_path, ss_tag_frequency='{"x": {"ink": 2}}')
    text = catalog_entry(found, name=catalog_name(found))
    assert "# trigger candidates: ink" in text
    assert read_back(tmp_path, text)["x"].kind == "style"


def test_names_differ_from_those_that_are_taken(tmp_path):
    found = report(tmp_path, ss_output_name="cat")
    assert catalog_name(found, taken=["cat", "cat-2"]) == "cat-3"


TEXTS = st.text(max_size=40) | st.sampled_from(
    ["a: b # c", "'\"", "- x", "null", "yes", "\u202ecat", "a\x00b", "1", "{}", "&a", "*a", "!!t x"]
)


@settings(deadline=None, max_examples=200)
@given(title=TEXTS, words=TEXTS, tag=TEXTS, licence=TEXTS)
def test_any_metadata_give_an_entry_that_the_catalog_takes(
    title, words, tag, licence, tmp_path_factory
):
    folder = tmp_path_factory.getbasetemp()
    found = report(
        folder,
        ss_output_name=title,
        ss_tag_frequency=json.dumps({f"10_{words}": {tag: 1}}),
        **{"modelspec.license": licence, "modelspec.trigger_phrase": tag},
    )
    name = catalog_name(found)
    entry = read_back(folder, catalog_entry(found, name=name))[name]
    assert (entry.subject, entry.trigger) == (found.notes.subject, found.notes.trigger)
    assert entry.license == found.notes.license
