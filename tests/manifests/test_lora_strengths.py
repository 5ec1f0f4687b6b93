"""What a LoRA's metadata make of its strength is part of its identity, and nothing else of them.

The oracles are peft, and the code that scales LoRAs when they are used.
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
from clora_core.lora.names import written_layer
from clora_core.lora.scales import MetadataScales
from manifests.lora_file import inspect_lora_file
from manifests.lora_layers import LoraLayer
from manifests.lora_scales import lora_scales, metadata_strengths
from manifests.safetensors_header import Header, read_header

RANK = 4
LAYERS = ("mid.attn1.to_q", "mid.attn1.to_k", "up.0.attn1.to_q", "conv_in")
PATTERNS = [
    "to_q", "attn1.to_q", "mid.attn1.to_q", "^mid.attn1.to_q", "^attn1.to_q", "to_k$", "q", "o_q",
    "to.q", "mid_attn1_to_q", "conv_in", "^conv_in$", "attn1", "0.attn1.to_q",
]  # fmt: skip
WILD = ["to_.*", r"up\.\d+\.attn1\.to_q", "mid|up", "[t]o_k"]
NUMBERS = st.sampled_from([1, 2, 4, 4.0, 8, 16, 2.0, 0, -0.0, True, None, "4", [4]])


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


def digest(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> str:
    path.write_bytes(safetensors_bytes(tensors, metadata=metadata))
    return inspect_lora_file(path).digest


def loaded_scales(metadata: Mapping[str, str]) -> tuple[float, ...]:
    """Return what the code that applies LoRAs makes of the file of ``peft_tensors``."""
    scales = MetadataScales.read(metadata)
    names = [written_layer(f"unet.{name}.lora_A.weight") for name in LAYERS]
    return tuple(scales.scale("unet", str(name), RANK, None) for name in names)


def drawn_settings(patterns: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    by_name = st.dictionaries(st.sampled_from(patterns), NUMBERS, max_size=4)
    return st.fixed_dictionaries(
        {},
        optional={
            "lora_alpha": NUMBERS,
            "alpha_pattern": by_name | st.just([1]),
            "use_rslora": st.sampled_from([True, False, None, 1, "yes"]),
            "r": st.just(RANK),
        },
    )


@settings(deadline=None, max_examples=150)
@example({"alpha_pattern": {"q": 16}, "lora_alpha": 8}, {"alpha_pattern": {"to_q": 16}})
@example({"lora_alpha": RANK}, {})
@given(drawn_settings(PATTERNS), drawn_settings(PATTERNS))
def test_digests_are_equal_exactly_where_the_loaded_strengths_are(path: Path, one, other):
    first, second = metadata_of(one), metadata_of(other)
    is_same = loaded_scales(first) == loaded_scales(second)
    tensors = peft_tensors()
    assert (digest(path, tensors, first) == digest(path, tensors, second)) == is_same


@settings(deadline=None, max_examples=150)
@given(drawn_settings(PATTERNS + WILD), drawn_settings(PATTERNS + WILD))
def test_other_strengths_are_another_digest_whatever_patterns_decide(path: Path, one, other):
    first, second = metadata_of(one), metadata_of(other)
    if loaded_scales(first) != loaded_scales(second):
        tensors = peft_tensors()
        assert digest(path, tensors, first) != digest(path, tensors, second)


@settings(deadline=None, max_examples=150)
@given(drawn_settings(PATTERNS + WILD))
def test_a_scale_that_is_shown_is_the_one_that_is_loaded(path: Path, drawn):
    path.write_bytes(safetensors_bytes(peft_tensors(), metadata=metadata_of(drawn)))
    info, header = inspect_lora_file(path), read_header(path)
    scales = lora_scales(path, header, info.layers)
    for name, loaded in zip(LAYERS, loaded_scales(metadata_of(drawn)), strict=True):
        assert scales[f"unet.{name}"] == loaded or (
            np.isnan(scales[f"unet.{name}"]) and set(drawn["alpha_pattern"]) & set(WILD)
        )


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


def peft_scales(settings_: Mapping[str, Any]) -> dict[str, float]:
    """Return the scale that peft gives every adapted layer."""
    block = torch.nn.ModuleDict({name: torch.nn.Linear(96, 8) for name in ("to_q", "to_k")})
    model = torch.nn.ModuleDict({"mid": torch.nn.ModuleDict({"attn1": block})})
    known = {name: value for name, value in settings_.items() if name != "target_modules"}
    config = LoraConfig(r=RANK, target_modules=["to_q", "to_k"], **{"lora_alpha": RANK, **known})
    inject_adapter_in_model(config, model)
    named = model.named_modules()
    return {n: m.scaling["default"] for n, m in named if n.endswith(("to_q", "to_k"))}


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys")
def test_files_that_peft_loads_at_other_strengths_have_other_digests(path: Path):
    tensors = peft_tensors(("mid.attn1.to_q", "mid.attn1.to_k"))
    found = [(peft_scales(each), digest(path, tensors, metadata_of(each))) for each in SETTINGS]
    for (one, first), (other, second) in combinations(found, 2):
        assert (one == other) == (first == second)
    assert len({first for _, first in found}) == 5


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
    "azure-frog": "b35784975ec484d4521c76b304e5e02fbc64827f53f9b017cad84773dadb1e62",
    "line-art": "49c457901fefc7aec7aa980d704b6e70005cfded9c080376172978686cb57931",
    "violet-cat": "5f70958c00408eae83e66784e1372adb663d9ed203e703de628569d1c6731e78",
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
    assert loaded_scales(first) == loaded_scales(second)
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


def test_thousands_of_patterns_on_thousands_of_layers_take_a_moment():
    layers = [
        LoraLayer(
            name=f"unet.b{i:05d}.to_q",
            rank=1,
            in_features=1,
            out_features=1,
            kernel=None,
            in_text_encoder=False,
        )
        for i in range(5000)
    ]
    dotted = {format(i, "b").zfill(11).replace("0", ".").replace("1", "x"): 3 for i in range(2000)}
    patterns = {f"b{i:05d}.to_q": i for i in range(5000)} | dotted
    header = Header(
        tensors={}, metadata=metadata_of({"alpha_pattern": patterns}), data_start=0, file_bytes=0
    )
    start = time.perf_counter()
    strengths = metadata_strengths(Path("/dev/null"), header, layers)
    assert time.perf_counter() - start < 5
    assert len(strengths) == 4999  # an alpha of 1 is a scale of 1
