"""The same LoRA twice in a row, under two names or in two formats: said, and not refused."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from engine_kit import commit
from input_kit import kohya_tensors, row, safetensors_bytes, write_job, write_jsonl
from PIL import Image
from pydantic import TypeAdapter

from clora_core.recipe.key import row_key
from clora_core.recipe.row import Lora
from jobs.commands.show import show
from jobs.commands.validate import validate
from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import load_job
from manifests.loras.files import LoraFileState
from manifests.rows.remarks import lora_remarks
from manifests.text.text_rules import ShortText
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import rows_name

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
KITTY = (
    "LoRAs 'cat' and 'kitty' are one LoRA under 2 names (written as kohya and as diffusers), which "
    "acts twice here; name it once, unless each name stands for a subject of its own"
)
COPY = KITTY.replace("kitty", "copy").replace(" (written as kohya and as diffusers)", "")


def diffusers_tensors(*, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return the LoRA that ``kohya_tensors`` is, as a diffusers script writes it."""
    down, up, alpha = kohya_tensors().values()
    name = f"unet.{LAYER.replace('.to_k', '.processor.to_k_lora')}"
    return {
        f"{name}.down.weight": down,
        f"{name}.up.weight": (up * scale).astype(up.dtype),
        f"{name}.alpha": alpha,
    }


def _recipe(png: bytes) -> dict[str, Any]:
    image: Any = Image.open(io.BytesIO(png))
    return json.loads(image.text["clora"])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job whose catalog has the LoRA ``cat`` a second and a third time."""
    path = write_job(tmp_path, [row()])
    files = tmp_path / "loras"
    (files / "copy.safetensors").write_bytes(
        safetensors_bytes(kohya_tensors(), metadata={"ss_output_name": "another"})
    )
    (files / "kitty.safetensors").write_bytes(safetensors_bytes(diffusers_tensors()))
    (files / "louder.safetensors").write_bytes(safetensors_bytes(diffusers_tensors(scale=2.0)))
    (files / "broken.safetensors").write_bytes(b"cut off")
    (files / "damaged.safetensors").write_bytes(b"cut off")
    entries = yaml.safe_load((files / "loras.yaml").read_text())["loras"]
    entries += [
        {"name": name, "uri": f"{name}.safetensors", "subject": "cat"}
        for name in ("copy", "kitty", "louder", "broken", "damaged")
    ]
    (files / "loras.yaml").write_text(yaml.safe_dump({"loras": entries}))
    return path


def prepared(job: Path, *rows: dict[str, Any]) -> PreparedJob:
    write_jsonl(job.parent / "rows.jsonl", rows)
    return prepare(load_job(job))


def of(*loras: str, seed: int = 7) -> dict[str, Any]:
    return row(prompt="a cat, a cat, a cat and a dog", loras=list(loras), seed=seed)


@pytest.mark.parametrize(
    ("loras", "remarks"),
    [
        (("cat", "dog"), ()),
        (("cat", "copy"), (COPY,)),
        (("cat", "kitty"), (KITTY,)),
        (("cat", "louder"), ()),
        (("cat:0.5", "dog", "kitty"), (KITTY,)),
        (("broken", "damaged"), ()),
    ],
)
def test_a_row_says_which_of_its_loras_are_one(job: Path, loras: Any, remarks: Any):
    (one,) = prepared(job, of(*loras)).rows
    assert one.remarks == remarks


def test_three_names_of_one_lora_are_one_remark(job: Path):
    (one,) = prepared(job, of("cat", "copy", "kitty")).rows
    (remark,) = one.remarks
    assert remark.startswith("LoRAs 'cat' and 'copy' and 'kitty' are one LoRA under 3 names")
    assert "which acts 3 times here" in remark


def test_a_remark_about_many_long_names_fits_into_a_recipe():
    loras = [
        Lora(name=f"{number}{chr(0xE0001) * 199}", uri="", digest="d", kind="style")
        for number in range(16)
    ]
    state = LoraFileState(digest="d", info=None, problem=None)
    (remark,) = lora_remarks(loras, lambda _: state)
    assert TypeAdapter(ShortText).validate_python(remark) == remark
    assert "and 12 more are one LoRA under 16 names" in remark


def test_validate_counts_the_rows_of_each_remark_and_refuses_none(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [of("cat", "kitty"), of("cat", "kitty", seed=8), of("cat", "copy"), of("cat", "dog")]
    write_jsonl(job.parent / "rows.jsonl", rows)
    assert validate(job) == 0
    out, err = capsys.readouterr()
    assert "4 row(s), 4 image(s); no problems" in out
    assert err.splitlines() == [f"2 row(s): {KITTY}", f"1 row(s): {COPY}"]


def test_a_remark_is_in_no_key(job: Path):
    (one,) = prepared(job, of("cat", "copy")).rows
    assert one.remarks
    assert row_key(replace(one, remarks=()), dtype="float32") == one.key


def test_remarks_are_in_the_table_and_in_the_picture(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said, silent = prepared(job, of("cat", "kitty"), of("cat", "dog", seed=8)).rows
    storage = LocalStorage(tmp_path / "made")
    commit(storage, "u1", [said, silent])
    table = pq.read_table(io.BytesIO(storage.read(rows_name("u1"))))
    assert table["remarks"].to_pylist() == [[KITTY], []]
    recipes = [_recipe(storage.read(image_name(one.key))) for one in (said, silent)]
    assert recipes[0]["remarks"] == [KITTY]
    assert "remarks" not in recipes[1]
    picture = tmp_path / "picture.png"
    picture.write_bytes(storage.read(image_name(said.key)))
    assert show(picture) == 0
    assert KITTY in capsys.readouterr().out
