"""A LoRA file that is replaced under its old name is never taken for the planned one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from engine_kit import FakeModelHost
from input_kit import kohya_tensors, safetensors_bytes, write_lora

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage, RowFailure
from manifests.loras.file import inspect_lora_file
from pipelines.stages import lora_identity
from pipelines.stages.lora_identity import LoraIdentity, compose_unchanged


def use(path: Path) -> Lora:
    digest = inspect_lora_file(path).digest
    return Lora(name=path.stem, uri=str(path), digest=digest, kind="concept", subject="cat")


def row(seed: int, *loras: Lora) -> Row:
    return Row(
        prompt="a cat",
        loras=loras,
        seed=seed,
        method="merge",
        sampler=SamplerConfig(),
        width=8,
        height=8,
    )


def test_rows_of_a_replaced_file_fail_by_name_and_the_others_are_made_in_order(tmp_path: Path):
    cat, dog = (
        use(write_lora(tmp_path / f"{name}.safetensors", seed=n))
        for n, name in enumerate(("cat", "dog"))
    )
    rows = [row(0, cat), row(1, cat, dog), row(2, cat)]
    identity = LoraIdentity()
    calls: list[list[int]] = []

    def compose(given: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        calls.append([one.seed for one in given])
        return FakeModelHost().compose(given)

    assert all(isinstance(one, ComposedImage) for one in compose_unchanged(rows, compose, identity))
    write_lora(tmp_path / "dog.safetensors", seed=7)
    os.utime(tmp_path / "dog.safetensors", ns=(1, 1))
    first, second, third = compose_unchanged(rows, compose, identity)
    assert isinstance(first, ComposedImage)
    assert isinstance(third, ComposedImage)
    assert isinstance(second, RowFailure)
    assert (second.stage, second.error) == ("lora", "LoraFileChanged")
    assert "dog.safetensors was replaced since the run was planned" in second.message
    assert dog.digest in second.message
    assert calls == [[0, 1, 2], [0, 2]]


def test_a_file_that_is_gone_or_cut_off_fails_its_row(tmp_path: Path):
    cat = use(write_lora(tmp_path / "cat.safetensors"))
    content = Path(cat.uri).read_bytes()
    Path(cat.uri).write_bytes(content[:-3])
    assert "cannot be used any more" in LoraIdentity().problem(cat)
    Path(cat.uri).unlink()
    assert "cannot be used any more" in LoraIdentity().problem(cat)
    (failure,) = compose_unchanged([row(0, cat)], pytest.fail, LoraIdentity())
    assert failure.stage == "lora"


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cat = use(write_lora(tmp_path / "cat.safetensors"))
    identity = LoraIdentity()
    assert identity.problem(cat) is None
    monkeypatch.setattr(lora_identity, "inspect_lora_file", pytest.fail)
    assert identity.problem(cat) is None


def test_a_file_whose_metadata_alone_make_it_stronger_now_is_another(tmp_path: Path):
    tensors = {name: t for name, t in kohya_tensors().items() if not name.endswith(".alpha")}
    path = tmp_path / "cat.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    cat, identity = use(path), LoraIdentity()
    assert identity.problem(cat) is None
    settings = json.dumps({"unet.lora_alpha": 32})
    stronger = safetensors_bytes(tensors, metadata={"lora_adapter_metadata": settings})
    path.write_bytes(stronger)
    assert "was replaced since the run was planned" in str(identity.problem(cat))
    path.write_bytes(safetensors_bytes(tensors, metadata={"ss_output_name": "cat"}))
    assert identity.problem(cat) is None
