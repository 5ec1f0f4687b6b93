"""What a base model folder says about itself in its configuration files, without loading it.

Enough to check a manifest against: the size of picture it was made for, the sizes that its
attention maps allow, the width of text its cross-attention reads, and the digest that stands for it
in every key. A folder that could not be loaded is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from clora_core.recipe.map_sizes import MapGrid, map_grid
from manifests.weights.digests import folder_digest
from manifests.weights.model_config import BaseModelProblem, model_config
from manifests.weights.model_files import pipeline_findings


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModelFacts:
    """A base model as its files describe it.

    Attributes:
        folder: Absolute path.
        digest: Identity of its files.
        default_size_px: Side of the square image that it was trained for, in pixels.
        cross_attention_width: Width of the text embedding; None if the files don't say one.
        maps: Sizes of its attention maps; None if the files don't say them.
    """

    folder: str
    digest: str
    default_size_px: int
    cross_attention_width: int | None
    maps: MapGrid | None = None


def inspect_base_model(path: str | Path) -> BaseModelFacts:
    """Return the facts of the diffusers-format folder ``path``.

    Raises:
        BaseModelProblem: It isn't one, or parts are missing; with a sentence for each.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise BaseModelProblem(
            f"{folder} is not a folder; name one in diffusers format, 'emoji-world', or "
            "'owner/name@revision' of the model hub"
        )
    index = model_config(folder, "model_index.json")
    unet, vae = model_config(folder, "unet/config.json"), model_config(folder, "vae/config.json")
    try:
        sample_size = int(unet["sample_size"])
        blocks = cast("Sequence[int]", vae["block_out_channels"])
        image_scale = 2 ** (len(blocks) - 1)
    except (KeyError, TypeError, ValueError) as error:
        raise BaseModelProblem(
            f"{folder} has a unet/config.json without a numeric sample_size, or a vae/config.json "
            "without block_out_channels; save the model with diffusers again"
        ) from error
    findings = pipeline_findings(folder, index)
    if findings:
        raise BaseModelProblem(". ".join(findings))
    width = unet.get("cross_attention_dim")
    return BaseModelFacts(
        folder=str(folder),
        digest=folder_digest(folder),
        default_size_px=sample_size * image_scale,
        cross_attention_width=width if isinstance(width, int) else None,
        maps=map_grid(unet, image_scale=image_scale),
    )
