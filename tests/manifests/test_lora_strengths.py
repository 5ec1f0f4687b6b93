"""What a LoRA's metadata make of its strength is part of its identity, and nothing else of them.

The oracle is peft.
"""

import json
import time
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from input_kit import kohya_tensors, safetensors_bytes
from peft import LoraConfig, inject_adapter_in_model

import emoji_world
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.shapes.size import UpdateSize
from manifests.loras.file import inspect_lora_file, lora_content
from manifests.loras.scales import lora_scales, strengths_beside_tensors
from manifests.weights.header import Header

pytestmark = pytest.mark.filterwarnings("ignore:The following alpha_pattern keys")

RANK = 4
LAYERS = ("mid.attn1.to_q", "mid.attn1.to_k", "up.0.attn1.to_q", "conv_in")
PATTERNS = [
    "to_q", "attn1.to_q", "mid.attn1.to_q", "^mid.attn1.to_q", "^attn1.to_q", "to_k$", "q", "o_q",
    "to.q", "mid_attn1_to_q", "conv_in", "^conv_in$", "attn1", "0.attn1.to_q",
]  # fmt: skip
WILD = ["to_.*", r"up\.\d+\.attn1\.to_q", "mid|up", "[t]o_k"]
ALPHAS = st.sampled_from([1, 2, 4, 4.0, 8, 16, 2.0, 0, -0.0, True])
"""That peft can take, too."""
ANYTHING = ALPHAS | st.sampled_from([None, "4", [4]])


def unet() -> torch.nn.Module:
    """Return a model with ``LAYERS``."""
    model = torch.nn.Module()
    for name in LAYERS:
        owner = model
        *path, last = name.split(".")
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, torch.nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(last, torch.nn.Linear(96, 8))
    return model


TARGETS = lora_targets({"unet": unet()})


def peft_tensors(names: tuple[str, ...] = LAYERS) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in names:
        found[f"unet.{name}.lora_A.weight"] = np.ones((RANK, 96), "f4")
        found[f"unet.{name}.lora_B.weight"] = np.ones((8, RANK), "f4")
    return found


def metadata_of(settings_: Mapping[str, Any], component: str = "unet") -> dict[str, str]:
    named = {f"{component}.{name}": value for name, value in settings_.items()}
    return {"lora_adapter_metadata": json.dumps(named)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strengths") / "lora.safetensors"


def write(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    path.write_bytes(safetensors_bytes(tensors, metadata=metadata))


def digest(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> str:
    write(path, tensors, metadata)
    return inspect_lora_file(path).digest


def loaded_scales(path: Path, metadata: Mapping[str, str]) -> dict[str, float]:
    """Return the scales of the factors that are loaded from the file of ``peft_tensors``."""
    write(path, peft_tensors(), metadata)
    factors = read_lora(path, TARGETS).of("unet")
    return {name: factors[name].scale for name in LAYERS}


def peft_scales(settings_: Mapping[str, Any]) -> dict[str, float]:
    """Return the scale that peft gives every layer."""
    model = unet()
    ours = {"r": RANK, "target_modules": ["to_q", "to_k", "conv_in"]}
    config = LoraConfig(**{"lora_alpha": RANK, **settings_, **ours})
    inject_adapter_in_model(config, model)
    return {name: model.get_submodule(name).scaling["default"] for name in LAYERS}


def drawn_settings(
    patterns: list[str], alphas: st.SearchStrategy[Any] = ANYTHING
) -> st.SearchStrategy[dict[str, Any]]:
    by_name = st.dictionaries(st.sampled_from(patterns), alphas, max_size=4)
    of_peft = alphas is ALPHAS
    default = {"lora_alpha": alphas}
    return st.fixed_dictionaries(
        default if of_peft else {},  # peft's own settings always have one
        optional=({} if of_peft else default)
        | {
            "alpha_pattern": by_name if of_peft else by_name | st.just([1]),
            "use_rslora": st.sampled_from([True, False] if of_peft else [True, None, 1, "yes"]),
            "r": st.just(RANK),
        },
    )


@settings(deadline=None, max_examples=200)
@example({"alpha_pattern": {"q": 16}, "lora_alpha": 8})
@example({"alpha_pattern": {"^to_q$": 2}, "lora_alpha": 8})
@given(drawn_settings(PATTERNS + WILD, ALPHAS))
def test_strengths_are_loaded_as_peft_has_them(path: Path, drawn):
    assert loaded_scales(path, metadata_of(drawn)) == peft_scales(drawn)


@settings(deadline=None, max_examples=150)
@given(drawn_settings(PATTERNS + WILD))
def test_a_scale_that_is_shown_is_the_one_that_is_loaded(path: Path, drawn):
    loaded = loaded_scales(path, metadata_of(drawn))
    content = lora_content(path)
    shown = lora_scales(path, content.header, content.layers, content.settings)
    for name in LAYERS:
        assert shown[f"unet.{name}"] == loaded[name] or (
            np.isnan(shown[f"unet.{name}"]) and set(drawn["alpha_pattern"]) & set(WILD)
        )


@settings(deadline=None, max_examples=150)
@example({"alpha_pattern": {"q": 16}, "lora_alpha": 8}, {"alpha_pattern": {"to_q": 16}})
@example({"lora_alpha": RANK}, {})
@given(drawn_settings(PATTERNS), drawn_settings(PATTERNS))
def test_digests_are_equal_exactly_where_the_loaded_strengths_are(path: Path, one, other):
    first, second = metadata_of(one), metadata_of(other)
    is_same = loaded_scales(path, first) == loaded_scales(path, second)
    tensors = peft_tensors()
    assert (digest(path, tensors, first) == digest(path, tensors, second)) == is_same


@settings(deadline=None, max_examples=150)
@given(drawn_settings(PATTERNS + WILD), drawn_settings(PATTERNS + WILD))
def test_other_strengths_are_another_digest_whatever_patterns_decide(path: Path, one, other):
    first, second = metadata_of(one), metadata_of(other)
    if loaded_scales(path, first) != loaded_scales(path, second):
        tensors = peft_tensors()
        assert digest(path, tensors, first) != digest(path, tensors, second)


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"lora_alpha": RANK},
    {"lora_alpha": 8},
    {"lora_alpha": 8.0, "target_modules": ["to_q", "to_k"]},
    {"lora_alpha": 32},
    {"lora_alpha": 8, "alpha_pattern": {"to_q": 32}},
    {"lora_alpha": 32, "alpha_pattern": {"to_k": 8}},
    {"lora_alpha": 8, "alpha_pattern": {"o_q": 32, "^to_q": 32}},
    {"lora_alpha": 8, "use_rslora": True},
    {"lora_alpha": 16, "use_rslora": False},
)


def test_files_that_peft_loads_at_other_strengths_have_other_digests(path: Path):
    tensors = peft_tensors()
    found = [(peft_scales(each), digest(path, tensors, metadata_of(each))) for each in SETTINGS]
    for (one, first), (other, second) in combinations(found, 2):
        assert (one == other) == (first == second)
    assert len({first for _, first in found}) == 6


def test_the_root_of_the_rank_counts_for_alpha_tensors_too(path: Path):
    tensors = peft_tensors() | {f"unet.{name}.alpha": np.array(8, "f4") for name in LAYERS}
    plain = digest(path, tensors)
    assert digest(path, tensors, metadata_of({"lora_alpha": 32})) == plain  # the tensors come first
    assert digest(path, tensors, metadata_of({"use_rslora": True})) != plain
    zero = tensors | {f"unet.{name}.alpha": np.array(0, "f4") for name in LAYERS}
    assert digest(path, zero, metadata_of({"use_rslora": True})) == digest(path, zero)


def test_files_whose_strength_is_in_their_tensors_keep_their_digests(path: Path):
    """Rows of every output made so far are found by these."""
    assert digest(path, kohya_tensors()) == KOHYA_DIGEST
    assert (
        digest(path, kohya_tensors(), {"ss_output_name": "cat"} | metadata_of({"x": 1}))
        == KOHYA_DIGEST
    )
    folder = Path(emoji_world.base_model_dir()).parent / "loras"
    for name, known in EMBEDDED_DIGESTS.items():
        assert inspect_lora_file(folder / f"{name}.safetensors").digest == known


KOHYA_DIGEST = "d7a98ec6c7aa6ad16fdd879c1510493466c2f6f418ce186484f484025b355d4a"
EMBEDDED_DIGESTS = {
    "azure-frog": "c15dd9773b4877a244a27eaf03dae630081236c862ba85d61cd5179e1f4876d2",
    "line-art": "f1cdf37ee6d93797bdbe9aef39ac1afad45b5c490c161ceea80aa8f2d1103c01",
    "violet-cat": "4df39cdffc29b7ddace84c00cbc1dce5cccf96080cdb7a9ffa356008d2c7971e",
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"unet.lora_alpha": 8}', '{ "a": [1], "unet.lora_alpha":8.0, "text_encoder.r": 3}'),
        ('{"unet.lora_alpha": 8}', '{"unet.lora_alpha": 2, "unet.lora_alpha": 8}'),
        ("{", "{}"),
        ("[" * 9999, "null"),
    ],
)
def test_texts_that_mean_one_strength_give_one_digest(path: Path, one: str, other: str):
    first, second = ({"lora_adapter_metadata": text} for text in (one, other))
    assert loaded_scales(path, first) == loaded_scales(path, second)
    assert digest(path, peft_tensors(), first) == digest(path, peft_tensors(), second)


def test_patterns_count_as_written_where_the_file_s_names_have_lost_their_dots(path: Path):
    tensors = {k: v for k, v in kohya_tensors().items() if not k.endswith(".alpha")}
    plain = digest(path, tensors)
    found = {
        digest(path, tensors, metadata_of({"alpha_pattern": {name: alpha}, "lora_alpha": 4}))
        for name in ("attn2.to_k", "attn2.to_q")
        for alpha in (4, 8, 16)
    }
    assert len(found) == 5  # an alpha of 4 is a scale of 1, whatever has it
    assert plain in found


def written_layers(name: str) -> list[LoraLayer]:
    return [
        LoraLayer(
            name=name.format(i),
            kind="lora",
            tensors={"down": "", "up": ""},
            shapes={"down": (1, 1), "up": (1, 1)},
            size=UpdateSize(1, 1, (1, 1)),
        )
        for i in range(5000)
    ]


DOTTED = {format(i, "b").zfill(11).replace("0", ".").replace("1", "x"): 3 for i in range(2000)}


@pytest.mark.parametrize(
    ("name", "patterns", "count"),
    [
        # an alpha of 1 is a scale of 1
        ("unet.b{:05d}.to_q", {f"b{i:05d}.to_q": i for i in range(5000)} | DOTTED, 4999),
        ("lora_unet_b{:05d}", {f"b{i:05d}.to_q": i for i in range(30_000)}, 1),
        ("unet.b{:05d}.to_q", {f"b{i}+": i for i in range(30_000)}, 1),
    ],
    ids=["plain", "without dots", "wild"],
)
def test_thousands_of_patterns_on_thousands_of_layers_take_a_moment(
    name: str, patterns: dict[str, int], count: int
):
    header = Header(tensors={}, metadata={}, data_start=0, file_bytes=0)
    given = {"unet.alpha_pattern": patterns}
    layers = written_layers(name)
    start = time.process_time()  # the machine may be busy with others
    strengths = strengths_beside_tensors(Path("/dev/null"), header, layers, given)
    assert time.process_time() - start < 60, "one by one they take hours"
    assert len(strengths) == count
