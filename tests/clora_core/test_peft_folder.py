"""A folder of peft's ``save_pretrained`` acts as strongly as peft itself makes it.

The oracle is peft. The settings are written by peft, and so are the tensors; what a LoRA does to
each weight is what ``merge_and_unload`` leaves of it.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clora_core.diffusion.model import load_base_model
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from emoji_world import base_model_dir
from manifests.loras.about.report import lora_report
from manifests.loras.file import inspect_lora_file
from manifests.weights.digests import tensor_hashes
from manifests.weights.header import read_header

UNET = {"target_modules": ["attn2.to_q", "attn1.to_k", "proj_in"]}
TEXT = {"target_modules": ["q_proj", "v_proj", "fc1"]}
MID = "mid_block.attentions.0.transformer_blocks.0"
SETTINGS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "alpha": ("unet", UNET | {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True}),  # of no effect
    "alpha of the text encoder": ("text_encoder", TEXT | {"r": 4, "lora_alpha": 3}),
    "alpha_pattern": (
        "unet",
        UNET
        | {
            "r": 4,
            "lora_alpha": 8,
            "alpha_pattern": {
                f"{MID}.attn2.to_q": 1,
                r"^down.*\.to_q": 2,
                "attn1.to_k": 6,
                "to_[kq]": 20,
            },
        },
    ),
    "rank_pattern": (
        "unet",
        UNET | {"r": 4, "lora_alpha": 8, "rank_pattern": {"attn2.to_q": 2, "proj_.*": 3}},
    ),
    "rslora": (
        "unet",
        UNET | {"r": 4, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"to_k": 9}},
    ),
    "all of the text encoder": (
        "text_encoder",
        TEXT
        | {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "rank_pattern": {r"layers\.0\..*": 2},
            "alpha_pattern": {"fc1": 5},
        },
    ),
    "some layers": (
        "text_encoder",
        TEXT | {"r": 2, "lora_alpha": 8, "layers_to_transform": [1], "layers_pattern": "layers"},
    ),
}


@pytest.fixture(scope="module")
def components() -> Mapping[str, nn.Module]:
    return load_base_model(base_model_dir()).components


@pytest.fixture
def fresh(components: Mapping[str, nn.Module]) -> Callable[[str], nn.Module]:
    """Return a component that peft may change."""
    return lambda name: deepcopy(components[name])


def saved(folder: Path, model: nn.Module, settings: Mapping[str, Any]) -> Path:
    """Have peft write a LoRA with random factors; return the file of its tensors."""
    adapted: Any = get_peft_model(model, LoraConfig(**settings))  # pyright: ignore[reportArgumentType]
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    adapted.save_pretrained(folder)
    return folder / "adapter_model.safetensors"


def changes_by_peft(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    before = {name: weight.double().clone() for name, weight in model.state_dict().items()}
    merged: Any = PeftModel.from_pretrained(model.double(), str(folder)).merge_and_unload()
    after = merged.state_dict()
    changes = {name: after[name] - weight for name, weight in before.items()}
    return {
        name.removesuffix(".weight"): change for name, change in changes.items() if change.any()
    }


def our_changes(file: Path, component: str, parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    factors = read_lora(file, lora_targets(parts)).components
    assert set(factors) == {component}
    return {
        name: (factor.up.double().flatten(1) @ factor.down.double().flatten(1)).unflatten(
            1, parts[component].get_submodule(name).weight.shape[1:]
        )
        * factor.scale
        for name, factor in factors[component].items()
    }


@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_every_weight_changes_as_peft_changes_it(components, fresh, tmp_path: Path, case: str):
    component, settings = SETTINGS[case]
    file = saved(tmp_path, fresh(component), settings)
    ours = our_changes(file, component, components)
    theirs = changes_by_peft(tmp_path, fresh(component))
    assert set(ours) == set(theirs)
    for name, change in ours.items():
        torch.testing.assert_close(change, theirs[name], rtol=0, atol=1e-6)


def test_the_class_that_was_trained_says_which_text_encoder_it_is(components, fresh, tmp_path):
    file = saved(tmp_path, fresh("text_encoder"), TEXT | {"r": 2, "lora_alpha": 2})
    plain = inspect_lora_file(file).digest
    two = {**components, "text_encoder_2": components["text_encoder"]}
    assert set(read_lora(file, lora_targets(two)).components) == {"text_encoder"}
    change_config(tmp_path, auto_mapping={"base_model_class": "CLIPTextModelWithProjection"})
    assert set(read_lora(file, lora_targets(two)).components) == {"text_encoder_2"}
    assert inspect_lora_file(file).digest != plain


def change_config(folder: Path, **changes: Any) -> None:
    """Set settings to other values; a value of ``...`` takes one out."""
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


@pytest.fixture(scope="module")
def original(components: Mapping[str, nn.Module], tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("peft")
    saved(folder, deepcopy(components["unet"]), UNET | {"r": 4, "lora_alpha": 8})
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes((original / name).read_bytes())
    return tmp_path


def digest(folder: Path) -> str:
    return inspect_lora_file(folder / "adapter_model.safetensors").digest


def test_another_strength_in_the_settings_is_another_lora_and_another_remark_is_not(folder):
    first = digest(folder)
    change_config(folder, base_model_name_or_path="somewhere/else", lora_dropout=0.5)
    assert digest(folder) == first
    found = {first}
    for changes in ({"lora_alpha": 16}, {"use_rslora": True}, {"alpha_pattern": {"to_q": 1}}):
        change_config(folder, **changes)
        found.add(digest(folder))
    assert len(found) == 4


def test_a_strength_of_one_is_the_lora_that_its_tensors_alone_are(folder):
    """Rows that were made with it at that strength keep their keys."""
    change_config(folder, lora_alpha=4)
    info = inspect_lora_file(folder / "adapter_model.safetensors")
    assert info.digest == only_tensors(folder)


def only_tensors(folder: Path) -> str:
    path = folder / "adapter_model.safetensors"
    return tensor_hashes(path, read_header(path)).identity


def test_a_report_shows_the_strength_and_is_asked_of_the_folder_too(folder):
    change_config(folder, base_model_name_or_path="some/model")
    report = lora_report(folder)
    assert (report.ranks, report.alphas, report.scales) == ((4,), (8.0,), (2.0,))
    assert report.notes.base_model == "some/model"
    assert report.fingerprint == lora_report(folder / "adapter_model.safetensors").fingerprint
    change_config(folder, alpha_pattern={"to_.*": 3})
    assert report.fingerprint != lora_report(folder).fingerprint


PLAIN = "train it again as a plain LoRA"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"peft_type": "IA3"},
            r"has the peft_type 'IA3', and LORA, LOHA, LOKR, OFT, BOFT are read",
        ),
        (
            {"peft_type": "LOHA", "alpha": 2},
            r"has the peft_type 'LOHA', and .* with the parts down",
        ),
        ({"peft_type": "LOHA"}, "should have a number as alpha, got none"),
        ({"peft_type": "OFT"}, "should have true or false as use_cayley_neumann, got none"),
        ({"peft_type": ...}, "has the peft_type None"),
        (
            {"use_dora": True},
            "has use_dora true, and .* has the layer 'base_.*' without one; put the",
        ),
        ({"use_qalora": True}, f"sets use_qalora to True, and QALoRA pools the inputs; {PLAIN}"),
        ({"modules_to_save": ["conv_in"]}, r"sets modules_to_save to \['conv_in'\]"),
        ({"bias": "all"}, "sets bias to 'all', and whole trained biases are not read"),
        ({"lora_bias": True}, "has lora_bias true, and .* without one"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model's own weights"),
        ({"use_newest": True}, "sets use_newest to True, which is not known here"),
        ({"r": ...}, "should have a whole number above 0 as r, got none"),
        ({"r": True}, "should have a whole number above 0 as r, got True"),
        ({"lora_alpha": ...}, "should have a number as lora_alpha, got none"),
        ({"lora_alpha": "8"}, "should have a number as lora_alpha, got '8'"),
        ({"lora_alpha": float("nan")}, "should have a number as lora_alpha, got nan"),
        ({"use_rslora": "yes"}, "should have true or false as use_rslora, got 'yes'"),
        ({"alpha_pattern": [8]}, r"should have an object as alpha_pattern, got \[8\]"),
        ({"alpha_pattern": {"to_q": None}}, "should have alphas in alpha_pattern, got None for"),
        ({"rank_pattern": {"to_q": 0.5}}, "should have ranks in rank_pattern, got 0.5 for 'to_q'"),
        ({"alpha_pattern": {"(a+)+b": 2}}, r"its alpha_pattern sets alphas by the pattern '\(a"),
        ({"r": 8}, r"gives 'base_model.model..*' the rank 8, and .* has it with rank 4"),
        ({"rank_pattern": {"to_q": 3}}, "the rank 3, and .* has it with rank 4"),
        ({"target_modules": ["to_v"]}, "among its target_modules, and .* has that layer"),
        (
            {"auto_mapping": {"base_model_class": "CLIPTextModel"}},
            "says that it is of the text_encoder",
        ),
    ],
)
def test_settings_that_cannot_be_applied_are_refused_by_name(folder, components, changes, words):
    change_config(folder, **changes)
    path = folder / "adapter_model.safetensors"
    with pytest.raises(LoraFileError, match=words) as said:
        inspect_lora_file(path)
    assert str(folder / "adapter_config.json") in str(said.value)
    with pytest.raises(LoraFileError, match=words):
        read_lora(path, lora_targets(components))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "should hold a JSON object"),
        (b" " * (10 * 1024**2 + 1), "at most 10,485,760 are read"),
    ],
)
def test_settings_that_cannot_be_read_are_a_problem(folder, content, words):
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(LoraFileError, match=words):
        digest(folder)


def test_settings_that_are_a_folder_are_a_problem(folder):
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").mkdir()
    with pytest.raises(LoraFileError, match="is not a file but a folder or device"):
        digest(folder)


def test_tensors_without_their_settings_are_refused_with_the_way_out(folder):
    (folder / "adapter_config.json").unlink()
    with pytest.raises(LoraFileError, match=r"nothing says how strong .* name that folder"):
        digest(folder)


def test_a_file_of_another_name_is_not_given_the_settings_beside_it(folder):
    """A folder of downloads has one file of settings at most, and many LoRAs."""
    (folder / "adapter_model.safetensors").rename(folder / "cat.safetensors")
    with pytest.raises(LoraFileError, match="nothing says how strong"):
        inspect_lora_file(folder / "cat.safetensors")


@pytest.mark.parametrize("prefix", ["unet.", "lora_unet_"])
def test_other_tools_files_take_nothing_from_settings_beside_them(folder, prefix):
    path = folder / "adapter_model.safetensors"

    def renamed(name: str) -> str:
        layer, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        if prefix == "unet.":
            return f"unet.{layer}.lora_{part}"
        half = {"A.weight": "down", "B.weight": "up"}[part]
        return f"lora_unet_{layer.replace('.', '_')}.lora_{half}.weight"

    save_file({renamed(name): tensor for name, tensor in load_file(path).items()}, path)
    beside = digest(folder)
    (folder / "adapter_config.json").unlink()
    assert digest(folder) == beside


def test_a_file_that_says_its_strength_itself_needs_no_settings_and_takes_no_second(folder):
    path = folder / "adapter_model.safetensors"
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8})}
    with_settings = lora_report(path)
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(LoraFileError, match=r"says its strength itself \('unet.lora_alpha'\)"):
        digest(folder)
    (folder / "adapter_config.json").unlink()
    assert lora_report(path).scales == (2.0,)
    assert lora_report(path).info.digest == with_settings.info.digest
