"""Pictures of rows with adapters of every kind are those of a base model with them merged."""

import dataclasses

import numpy as np
import pytest
import yaml
from oracles.core_runs import Core
from oracles.every_kind import EveryKind, folded
from oracles.same_lora import KINDS as SAME
from oracles.same_lora import write_same
from oracles.tiny_rows import lora_use

import emoji_world
from clora_core.composer import Composer
from clora_core.diffusion.model import load_base_model
from clora_core.lora.cache import LoraCache
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.config import sampler_preset
from clora_core.recipe.row import Region, Row
from clora_core.results import ComposedImage

SIDE_PX = 32
"""Half of what the model was trained for: all that is compared is numbers."""
EIGHT = ("LoRA", "Tucker", "LoHa", "LoKr", "DoRA", "OFT", "BOFT", "norms")


@pytest.fixture(scope="module")
def model():
    return load_base_model(emoji_world.base_model_dir())


@pytest.fixture(scope="module")
def composer(model):
    return Composer(model, LoraCache(2**28), graph_budget_bytes=2**30)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    core = Core(emoji_world.base_model_dir())
    return EveryKind(tmp_path_factory.mktemp("adapters"), core, "F32")


def row_of(*uses, seed=5):
    """A row whose text is the same with and without the adapters."""
    sampler = sampler_preset("emoji").model_copy(update={"num_steps": 4})
    return Row(
        prompt="a cat and a dog on the beach",
        loras=uses,
        seed=seed,
        method="merge" if uses else "base",
        sampler=sampler,
        width=SIDE_PX,
        height=SIDE_PX,
    )


def use(adapter, weight=1.0):
    return lora_use(adapter.expected.path, kind="style", weight=weight)


def pictures(composer, *rows):
    made = composer.compose(rows)
    assert all(isinstance(each, ComposedImage) for each in made), made
    return [each.image.astype(int) for each in made]


def merged(composer, model, *weighted, seed=5):
    with folded(model.components, weighted):
        return pictures(composer, row_of(seed=seed))[0]


def levels_apart(one, other):
    return int(np.abs(one - other).max())


@pytest.fixture(scope="module")
def eight(composer, adapters):
    """Pictures of eight rows in one batch, each with another kind and seed."""
    rows = [row_of(use(adapters[kind]), seed=seed) for seed, kind in enumerate(EIGHT)]
    return dict(zip(EIGHT, pictures(composer, *rows), strict=True))


@pytest.mark.parametrize("kind", EIGHT)
def test_a_row_of_a_batch_of_eight_kinds_is_the_base_model_with_its_own_merged(
    composer, model, adapters, eight, kind
):
    seed = EIGHT.index(kind)
    expected = merged(composer, model, (adapters[kind], 1.0), seed=seed)
    [alone] = pictures(composer, row_of(use(adapters[kind]), seed=seed))
    assert levels_apart(eight[kind], expected) <= 1
    assert levels_apart(alone, expected) <= 1


def test_the_eight_pictures_differ(composer, eight):
    bases = pictures(composer, *(row_of(seed=seed) for seed in range(len(EIGHT))))
    assert all(levels_apart(eight[k], base) > 20 for k, base in zip(EIGHT, bases, strict=True))


def test_two_kinds_in_one_row_are_the_sum_of_their_differences(composer, model, adapters):
    weighted = [(adapters["difference"], 0.5), (adapters["LoKr, DoRA"], -0.4)]
    [found] = pictures(composer, row_of(*(use(*each) for each in weighted)))
    assert levels_apart(found, merged(composer, model, *weighted)) <= 1
    assert levels_apart(found, merged(composer, model, weighted[0])) > 10


# ------------------------------------------------------------- one trained LoRA in many kinds


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    """Two trained LoRAs, with convolutions and without, in every kind that holds them exactly."""
    catalog = emoji_world.lora_catalog()
    entries = {e["name"]: e for e in yaml.safe_load(catalog.read_text())["loras"]}
    targets = lora_targets(model.components)
    found = {}
    for name in ("retro-robot", "violet-cat"):
        entry, folder = entries[name], tmp_path_factory.mktemp(name)
        lora = read_lora(catalog.parent / entry["uri"], targets)
        for kind in SAME:
            path = write_same(folder, kind, lora, model.components)
            found[name, kind] = lora_use(path, subject=entry["subject"], trigger=entry["trigger"])
    return found


def trained_row(method, *uses, **settings):
    sampler = sampler_preset("emoji").model_copy(update={"num_steps": 4, **settings})
    prompt = " and ".join(f"a {each.subject}" for each in uses)
    row = row_of(*uses)
    return dataclasses.replace(row, prompt=prompt, method=method, sampler=sampler)


def test_a_trained_lora_makes_the_same_picture_in_every_kind(composer, written):
    rows = [trained_row("single", written["retro-robot", kind]) for kind in SAME]
    plain, *others = pictures(composer, *rows)
    assert [levels_apart(other, plain) <= 1 for other in others] == [True] * len(others)
    [base] = pictures(composer, trained_row("base", written["retro-robot", "LoRA"]))
    assert levels_apart(plain, base) > 20


SIDE_BY_SIDE = {
    "merge": ("LoKr", "DoRA"),
    "clora-gated": ("DoRA of inputs", "LoHa"),
    "clora": ("difference", "LoKr"),
}


@pytest.mark.parametrize("method", SIDE_BY_SIDE)
def test_two_kinds_side_by_side_make_the_picture_of_two_loras(composer, written, method):
    """Each LoRA in its own half, its own masks, or its own lane."""
    made = []
    for pair in (SIDE_BY_SIDE[method], ("LoRA", "LoRA")):
        left, right = written["retro-robot", pair[0]], written["violet-cat", pair[1]]
        if method == "merge":
            left = dataclasses.replace(left, region=Region(box=(0.0, 0.0, 0.5, 1.0)))
            right = dataclasses.replace(right, region=Region(box=(0.5, 0.0, 1.0, 1.0)))
        row = trained_row(method, left, right, guide_until_step=2, refine_steps=())
        made += pictures(composer, row)
    assert levels_apart(*made) <= 1
