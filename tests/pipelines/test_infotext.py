"""What readers of pictures find in ours: the row, whatever its prompt looks like."""

import io
import json
import re
from typing import Any

import pytest
from engine_kit import SAMPLER, commit, lora, row
from PIL import Image

from clora_core.recipe.row import Row
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name

PROMPTS = [
    "a cat and a dog",
    'a "red" cat, blue: dog; (soft:1.2) [fog], 50% {wild|tame}',
    "a poster that says Steps: 3, Sampler: Euler, Seed: 9, CFG scale: 1, Size: 1x1",
    "a poster that says\nSteps of a stair, and\na dog",
    "naïve café, \N{SNOWMAN} 猫と犬 \N{DOG FACE}",
    "<lora:other:0.7> a cat <violet-cat>",
    r"a cat \(plush\) C:\new",
]


def shown(storage: LocalStorage, one: Row) -> Image.Image:
    """Return the picture of a row once it is committed."""
    commit(storage, "u1", [one])
    return Image.open(io.BytesIO(storage.read(image_name(one.key))))


@pytest.fixture
def storage(tmp_path: Any) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


@pytest.mark.parametrize(
    ("prompt", "negative"), list(zip(PROMPTS, ["", *reversed(PROMPTS[1:])], strict=True))
)
def test_a_reader_of_pictures_finds_the_row(storage: LocalStorage, prompt: str, negative: str):
    parsers = pytest.importorskip("sd_parsers")
    loras = (
        lora("violet cat-v1.5", weight=0.75),
        lora("犬", weight=-1.0),
        lora("unknown", a1111_hash=None),
    )
    sampler = SAMPLER.model_copy(
        update={"num_steps": 7, "guide_until_step": 5, "scheduler": "dpmpp"}
    )
    one = row(
        prompt=prompt, negative_prompt=negative, loras=loras, seed=2**53 + 1, width=16,
        sampler=sampler, method="clora-gated",
    )  # fmt: skip
    found = parsers.ParserManager().parse(shown(storage, one))
    assert found.full_prompt == prompt
    assert found.full_negative_prompt == negative
    (used,) = found.samplers
    assert used.name == "DPM++ 2M"
    assert used.parameters == {"steps": "7", "cfg_scale": "7.5", "seed": str(2**53 + 1)}
    assert used.model.hash == one.base_model_digest[:12]
    assert found.metadata["Size"] == "16x8"
    assert found.metadata["Composition"] == "clora-gated"
    names = [found.metadata[f"Lora {n}"] for n in (1, 2, 3)]
    weights = [float(found.metadata[f"Lora weight {n}"]) for n in (1, 2, 3)]
    assert list(zip(names, weights, strict=True)) == [(lora.name, lora.weight) for lora in loras]
    assert found.metadata["Hashes"] == {
        f"lora:{lora.name}": lora.a1111_hash for lora in loras if lora.a1111_hash
    }


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a sign: Negative prompt: none", "a sign: Negative prompt : none"),
        ("Negative prompt: a cat", "Negative prompt : a cat"),
        ("a stair\nSteps: 3", "a stair\nSteps : 3"),
    ],
)
def test_words_that_begin_a_part_stay_in_the_prompt(storage: LocalStorage, given: str, read: str):
    parsers = pytest.importorskip("sd_parsers")
    picture = shown(storage, row(prompt=given, negative_prompt=given))
    found = parsers.ParserManager().parse(picture)
    assert (found.full_prompt, found.full_negative_prompt) == (read, read)
    assert json.loads(picture.text["clora"])["prompt"] == given  # pyright: ignore[reportAttributeAccessIssue]


def test_quoted_fields_are_whole_for_readers_that_know_quotes(storage: LocalStorage):
    loras = (lora("cat"), lora("a\\b"))
    text = str(shown(storage, row(loras=loras)).info["parameters"])
    fields = dict(re.findall(r'(\w[\w -]+): ("(?:\\.|[^"\\])*"|[^,]*)', text.splitlines()[-1]))
    hashes = ", ".join(f"{lora.name}: {lora.a1111_hash}" for lora in loras)
    assert json.loads(fields["Lora hashes"]) == hashes
    assert fields["Lora 2"] == "a\\b"
    assert (fields["Steps"], fields["Seed"]) == ("50", "0")
