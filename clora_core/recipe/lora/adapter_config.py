"""What peft writes beside an adapter's tensors: ``adapter_config.json``, read and checked.

The strength of an adapter that peft has saved is there and nowhere else, and so is whatever else
changes a layer's output. What cannot be applied is refused by its name (``tuners``).
"""

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.kinds import PLAIN_CAYLEY, Cayley, Kind
from clora_core.recipe.lora.parts import Part
from clora_core.recipe.lora.tuners import TUNERS, refusals

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MAX_CONFIG_BYTES = 10 * 1024**2

_COMPONENTS = {
    "UNet2DConditionModel": "unet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
}
"""The classes that peft notes as what it has trained."""

PARTS_BY_SETTING: tuple[tuple[str, Part], ...] = (("use_dora", "magnitude"), ("lora_bias", "bias"))
"""Settings of a LoRA by which each of its layers has a part more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterConfig:
    """Settings of an adapter, as peft keeps them.

    Attributes:
        path: The file.
        peft_type: As it says.
        kind: Of its layers' updates.
        r: Rank of layers that no pattern names; None where layers have no rank.
        rank_pattern: Ranks by layer pattern.
        strength: ``lora_alpha``, ``alpha_pattern`` and ``use_rslora``; nothing where there is no
            strength.
        has: Parts that every layer has, or none: ``magnitude`` (DoRA), ``bias``.
        cayley: How rotations were made in training.
        is_shared: All blocks of a rotation are one.
        targets: Ends of the names of the layers it was trained on; None where an expression says
            them.
        component: That was trained; None where the file does not say.
        base_model: Name or path of the model that it was trained on; None where it says none.
    """

    path: Path
    peft_type: str
    kind: Kind
    r: int | None
    rank_pattern: Mapping[str, int]
    strength: Mapping[str, Any]
    has: frozenset[Part]
    cayley: Cayley
    is_shared: bool
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
    for sentence in refusals(given):
        raise LoraFileError(f"{path} {sentence}")
    tuner = TUNERS[given["peft_type"]]
    mapping = given.get("auto_mapping")
    trained = cast("dict[str, Any]", mapping) if isinstance(mapping, dict) else {}
    base_model = given.get("base_model_name_or_path")
    return AdapterConfig(
        path=path,
        peft_type=given["peft_type"],
        kind=tuner.kind,
        r=None if tuner.alpha is None else given["r"],
        rank_pattern=given.get("rank_pattern") or {},
        strength={}
        if tuner.alpha is None
        else {
            "lora_alpha": given[tuner.alpha],
            "alpha_pattern": given.get("alpha_pattern") or {},
            "use_rslora": tuner.kind == "lora" and given.get("use_rslora") is True,
        },
        has=frozenset(part for name, part in PARTS_BY_SETTING if given.get(name) is True),
        cayley=_cayley(given) if tuner.kind == "oft" else PLAIN_CAYLEY,
        is_shared=given.get("block_share") is True,
        targets=_texts(given.get("target_modules")),
        component=_COMPONENTS.get(str(trained.get("base_model_class"))),
        base_model=base_model if isinstance(base_model, str) and base_model else None,
    )


def _cayley(given: Mapping[str, Any]) -> Cayley:
    return Cayley(
        terms=given["num_cayley_neumann_terms"] if given["use_cayley_neumann"] else None,
        block_limit=float(given["eps"]) if given["coft"] else None,
    )


def _texts(value: object) -> frozenset[str] | None:
    if not isinstance(value, list):
        return None
    return frozenset(str(item) for item in cast("list[object]", value))
