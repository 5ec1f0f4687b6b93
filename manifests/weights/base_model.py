"""What a base model folder says about itself in its configuration files, without loading it.

Enough to check a manifest against: the size of picture it was made for, the width of text its
cross-attention reads, and the digest that stands for it in every key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import CloraError
from manifests.places.regular_file import irregularity
from manifests.weights.digests import folder_digest


class BaseModelProblem(CloraError):  # noqa: N818  (a finding about a folder, not a fault of ours)
    """The folder is no base model; the message is a sentence that names it and the way out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModelFacts:
    """A base model as its files describe it.

    Attributes:
        folder: Absolute path.
        digest: Identity of its files.
        default_size_px: Side of the square image that it was trained for, in pixels.
        cross_attention_width: Width of the text embedding; None if the files don't say one.
    """

    folder: str
    digest: str
    default_size_px: int
    cross_attention_width: int | None


def inspect_base_model(path: str | Path) -> BaseModelFacts:
    """Return the facts of the diffusers-format folder ``path``.

    Raises:
        BaseModelProblem: It isn't one.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise BaseModelProblem(
            f"{folder} is not a folder; name one in diffusers format, 'emoji-world', or "
            "'owner/name@revision' of the model hub"
        )
    model_config(folder, "model_index.json")
    unet, vae = model_config(folder, "unet/config.json"), model_config(folder, "vae/config.json")
    try:
        sample_size = int(unet["sample_size"])
        blocks = cast("Sequence[int]", vae["block_out_channels"])
        default_size_px = sample_size * 2 ** (len(blocks) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelProblem(
            f"{folder} has a unet/config.json without a numeric sample_size, or a vae/config.json "
            "without block_out_channels; save the model with diffusers again"
        ) from error
    width = unet.get("cross_attention_dim")
    return BaseModelFacts(
        folder=str(folder),
        digest=folder_digest(folder),
        default_size_px=default_size_px,
        cross_attention_width=width if isinstance(width, int) else None,
    )


def model_config(folder: Path, name: str) -> Mapping[str, Any]:
    """Return the JSON object in the file ``name`` of a model folder.

    Raises:
        BaseModelProblem: It isn't there, cannot be read, or holds something else.
    """
    problem = irregularity(folder / name)
    if problem is not None:
        raise BaseModelProblem(f"{folder / name} {problem}")
    try:
        value = json.loads((folder / name).read_text())
    except FileNotFoundError:
        raise BaseModelProblem(
            f"{folder} has no {name}; name a model folder in diffusers format (one .safetensors "
            "checkpoint can be converted with diffusers' from_single_file)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelProblem(f"{folder / name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise BaseModelProblem(f"{folder / name} should hold a JSON object")
    return cast("dict[str, Any]", value)
