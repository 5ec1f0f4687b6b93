"""What peft writes beside a LoRA's tensors: ``adapter_config.json``, read and checked.

The strength of a LoRA that peft has saved is there and nowhere else, and so is whatever else
changes a layer's output. What cannot be applied is refused by its name.
"""

import json
import math
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.alpha_patterns import cost_problem

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 10 * 1024**2

_COMPONENTS = {
    "UNet2DConditionModel": "unet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
}
"""The classes that peft notes as what it has trained."""

_RETRAIN = "train it again as a plain LoRA"
_NOT_APPLIED: Mapping[str, str] = {
    "use_dora": "DoRA rescales whole weights",
    "use_qalora": "QALoRA pools the inputs",
    "use_bdlora": "BD-LoRA has factors in blocks",
    "lora_bias": "trained biases are not read",
    "modules_to_save": "whole trained layers are not read",
    "trainable_token_indices": "trained words are not read",
    "target_parameters": "LoRAs of single parameters are not read",
    "layer_replication": "it changes the base model's layers",
    "alora_invocation_tokens": "it acts on some tokens alone",
    "arrow_config": "it chooses among several LoRAs",
    "kasa_config": "KaSA changes the base model's weights",
    "monteclora_config": "MonteCLoRA draws its factors at random",
}
_CHANGES_BASE = re.compile(r"pissa|corda|olora|loftq|lora_ga", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """Settings of a plain LoRA, as peft keeps them.

    Attributes:
        path: The file.
        r: Rank of layers that no pattern names.
        rank_pattern: Ranks by layer pattern.
        strength: ``lora_alpha``, ``alpha_pattern`` and ``use_rslora``.
        targets: Ends of the names of the layers it was trained on; None where an expression says
            them.
        component: That was trained; None where the file does not say.
        base_model: Name or path of the model that it was trained on; None where it says none.
    """

    path: Path
    r: int
    rank_pattern: Mapping[str, int]
    strength: Mapping[str, Any]
    targets: frozenset[str] | None
    component: str | None
    base_model: str | None


def read_adapter_config(file: Path) -> AdapterConfig | None:
    """Return the settings beside the weight file ``file``; None if none are there for it.

    peft gives both files their names, so the settings are those of ``adapter_model.safetensors``
    in their folder and of no other file that is there too.

    Raises:
        LoraFileError: They cannot be read, are incomplete, or ask what is not applied here.
    """
    if file.name != ADAPTER_FILE:
        return None
    path = file.with_name(CONFIG_FILE)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LoraFileError(
                f"{path} is not a file but a folder or device; put peft's file here"
            )
        if status.st_size > MAX_CONFIG_BYTES:
            raise LoraFileError(
                f"{path} has {status.st_size:,} bytes, and at most {MAX_CONFIG_BYTES:,} are read; "
                "is it peft's file?"
            )
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise LoraFileError(
            f"{path} is not valid JSON ({error}); save the LoRA with peft again"
        ) from error
    if not isinstance(value, dict):
        raise LoraFileError(f"{path} should hold a JSON object; save the LoRA with peft again")
    return parsed_config(path, cast("dict[str, Any]", value))


def parsed_config(path: Path, given: Mapping[str, Any]) -> AdapterConfig:
    """Return the settings of ``path``, whose JSON object is ``given``.

    Raises:
        LoraFileError: As ``read_adapter_config``.
    """
    for sentence in _refusals(given):
        raise LoraFileError(f"{path} {sentence}")
    targets = given.get("target_modules")
    mapping = given.get("auto_mapping")
    trained = cast("dict[str, Any]", mapping) if isinstance(mapping, dict) else {}
    base_model = given.get("base_model_name_or_path")
    return AdapterConfig(
        path=path,
        r=given["r"],
        rank_pattern=given.get("rank_pattern") or {},
        strength={
            "lora_alpha": given["lora_alpha"],
            "alpha_pattern": given.get("alpha_pattern") or {},
            "use_rslora": given.get("use_rslora") is True,
        },
        targets=_texts(targets),
        component=_COMPONENTS.get(str(trained.get("base_model_class"))),
        base_model=base_model if isinstance(base_model, str) and base_model else None,
    )


def _refusals(given: Mapping[str, Any]) -> Sequence[str]:
    """Return the ends of sentences on what is wrong, the gravest first."""
    kind = given.get("peft_type")
    if kind != "LORA":
        return [
            f"has the peft_type {_shown(kind)}, and only 'LORA' is applied here; {_RETRAIN}, or "
            "name the folder of one"
        ]
    found = [
        f"sets {name} to {_shown(given[name])}, and {reason}; {_RETRAIN}"
        for name, reason in _NOT_APPLIED.items()
        if given.get(name)
    ]
    found += [
        f"sets {name[:100]} to {_shown(value)}, which is not known here; {_RETRAIN}"
        for name, value in given.items()
        if name.startswith("use_") and name != "use_rslora" and name not in _NOT_APPLIED and value
    ]
    if given.get("bias", "none") != "none":
        found.append(
            f"sets bias to {_shown(given['bias'])}, and trained biases are not read; {_RETRAIN} "
            "with bias 'none'"
        )
    start = given.get("init_lora_weights", True)
    if isinstance(start, str) and _CHANGES_BASE.match(start):
        found.append(
            f"sets init_lora_weights to {_shown(start)}, which changes the base model's own "
            "weights; save it with peft's path_initial_model_for_weight_conversion, which makes a "
            "plain LoRA of it"
        )
    return [*found, *_strength_refusals(given)]


def _strength_refusals(given: Mapping[str, Any]) -> Sequence[str]:
    again = "save the LoRA with peft again"
    found: list[str] = []
    if not _is_rank(given.get("r")):
        found.append(f"should have a whole number above 0 as r, got {_value(given, 'r')}; {again}")
    if not _is_number(given.get("lora_alpha")):
        found.append(
            f"should have a number as lora_alpha, got {_value(given, 'lora_alpha')}; {again}"
        )
    if not isinstance(given.get("use_rslora", False), bool | None):
        found.append(f"should have true or false as use_rslora, got {_value(given, 'use_rslora')}")
    for name, is_right, kind in (
        ("alpha_pattern", _is_number, "alphas"),
        ("rank_pattern", _is_rank, "ranks"),
    ):
        patterns = given.get(name) or {}
        if not isinstance(patterns, dict):
            found.append(f"should have an object as {name}, got {_value(given, name)}; {again}")
            continue
        by_pattern = cast("dict[str, Any]", patterns)
        wrong = [key for key, value in by_pattern.items() if not is_right(value)]
        if wrong:
            found.append(
                f"should have {kind} in {name}, got {_shown(by_pattern[wrong[0]])} for "
                f"{wrong[0][:100]!r}; {again}"
            )
        cost = cost_problem(by_pattern, said=f"its {name} sets {kind}")
        if cost is not None:
            found.append(f"cannot be used: {cost}")
    return found


def _texts(value: object) -> frozenset[str] | None:
    if not isinstance(value, list):
        return None
    return frozenset(str(item) for item in cast("list[object]", value))


def _is_rank(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def _is_number(value: object) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(float(cast("float", value)))
    except OverflowError:
        return False


def _value(given: Mapping[str, Any], name: str) -> str:
    return _shown(given[name]) if name in given else "none"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
