import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from engine_kit import BAD_ROW, commit, row, rows
from PIL import Image

from pipelines.ledger.error_tables import restore_errors
from pipelines.ledger.ledger import read_ledger
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import errors_name, rows_name
from pipelines.units.schemas import ERRORS, ROWS


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def read(storage: LocalStorage, name: str) -> list[dict[str, object]]:
    return pq.read_table(io.BytesIO(storage.read(name))).to_pylist()


def test_a_unit_ends_as_images_under_their_keys_and_one_file_of_rows(storage: LocalStorage):
    unit = rows(3)
    receipt = commit(storage, "u1", unit)
    assert receipt.committed
    assert receipt.num_made == 3
    table = pq.read_table(io.BytesIO(storage.read(rows_name("u1"))))
    assert table.schema.equals(ROWS)
    for made in table.to_pylist():
        assert made["image"]["path"] == image_name(made["key"])
        assert made["image"]["bytes"] == storage.read(image_name(made["key"]))
        assert made["loss_first"] == 1.5
        assert made["loss_last"] == 0.5
        assert made["num_updates"] == 2
        assert made["mask_leakage"] == [0.5, 0.25]
    assert not storage.exists(errors_name("u1"))


def test_every_png_tells_its_own_row_s_seed_whatever_its_batch(storage: LocalStorage):
    unit = rows(3)
    commit(storage, "u1", unit)
    for one in unit:
        texts = Image.open(io.BytesIO(storage.read(image_name(one.key)))).text
        assert f"Seed: {one.seed}," in texts["parameters"]
        recipe = json.loads(texts["clora"])
        assert recipe["seed"] == one.seed
        assert recipe["key"] == one.key
        assert [lora["name"] for lora in recipe["loras"]] == ["cat", "dog"]


def test_row_and_png_name_the_base_model_of_the_row(storage: LocalStorage):
    unit = [row(0), row(1, base_model_digest="cd" * 32)]
    commit(storage, "u1", unit)
    told = {made["key"]: made["base_model_digest"] for made in read(storage, rows_name("u1"))}
    assert told == {one.key: one.base_model_digest for one in unit}
    for one in unit:
        texts = Image.open(io.BytesIO(storage.read(image_name(one.key)))).text
        assert f"Model hash: {one.base_model_digest[:12]}," in texts["parameters"]
        assert json.loads(texts["clora"])["base_model_digest"] == one.base_model_digest


def test_infotext_has_prompt_negative_prompt_and_lora_hashes(storage: LocalStorage):
    one = row(prompt="a cat, \N{SNOWMAN} and a dog", negative_prompt="blur")
    commit(storage, "u1", [one])
    texts = Image.open(io.BytesIO(storage.read(image_name(one.key)))).text
    prompt, negative, settings = texts["parameters"].splitlines()
    assert prompt == "a cat, \N{SNOWMAN} and a dog"
    assert negative == "Negative prompt: blur"
    first, second = (lora.a1111_hash for lora in one.loras)
    assert f'Lora hashes: "cat: {first}, dog: {second}"' in settings
    assert settings.startswith("Steps: 50, Sampler: DDIM, CFG scale: 7.5, Seed: 0, Size: 8x8")


def test_a_failed_row_is_in_errors_with_its_reason_and_not_among_the_rows(storage: LocalStorage):
    good, bad = row(0), row(1, prompt=BAD_ROW)
    receipt = commit(storage, "u1", [good, bad], attempt=2)
    assert (receipt.num_made, receipt.num_failed) == (1, 1)
    assert [made["key"] for made in read(storage, rows_name("u1"))] == [good.key]
    (error,) = read(storage, errors_name("u1"))
    assert error["key"] == bad.key
    assert error["stage"] == "prompt"
    assert error["message"] == "no subject in it"
    assert error["attempt"] == 2
    assert pq.read_schema(io.BytesIO(storage.read(errors_name("u1")))).equals(ERRORS)


def test_whoever_commits_second_changes_nothing_and_tells_of_the_first(storage: LocalStorage):
    unit = [row(0), row(1)]
    commit(storage, "u1", unit, run_id="first")
    before = storage.read(rows_name("u1"))
    image = storage.read(image_name(unit[0].key))
    storage.put(image_name(unit[0].key), b"the image that the first one made")
    late = [row(0, prompt=BAD_ROW, key=unit[0].key), unit[1]]
    receipt = commit(storage, "u1", late, run_id="second")
    assert not receipt.committed
    assert receipt.num_made == 2
    assert storage.read(rows_name("u1")) == before
    assert storage.read(image_name(unit[0].key)) != image
    assert read_ledger(storage).num_doubled == 0


def test_a_kill_between_commit_and_errors_table_loses_neither(storage: LocalStorage):
    commit(storage, "u1", [row(0), row(1, prompt=BAD_ROW)])
    table = storage.read(errors_name("u1"))
    (Path(storage.uri) / errors_name("u1")).unlink()
    ledger = read_ledger(storage)
    assert len(ledger.made) == len(ledger.failed) == 1
    assert restore_errors(storage, ledger) == 1
    assert storage.read(errors_name("u1")) == table
    assert restore_errors(storage, ledger) == 0
