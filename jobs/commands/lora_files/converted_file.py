"""The file that ``clora loras convert`` writes, and what it says of itself in its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.trainer_notes import trainer_notes
from manifests.loras.file import LoraContent
from manifests.weights.base_model import BaseModelFacts

if TYPE_CHECKING:
    from clora_core.lora.plain_file import Naming
    from clora_core.lora.plain_layer import RankLimits
    from clora_core.lora.plain_lora import PlainLora

METADATA_KEY = "clora_converted"

_MAX_KEPT_CHARACTERS = 1_000_000
_NOT_KEPT = ("ss_network_", "sshs_", "modelspec.hash", "modelspec.title", "modelspec.description")
"""Begin what a trainer has written of the file itself."""


def conversion(
    path: str,
    content: LoraContent,
    plain: "PlainLora",
    limits: "RankLimits",
    gone: dict[str, int],
    base_model: str | None,
    facts: BaseModelFacts | None,
) -> dict[str, Any]:
    """Return what the metadata and the console say: what the file was made of, and how near it is.

    Args:
        path: The adapter, as the command names it.
        content: Of that file.
        plain: What it became.
        limits: That its ranks had.
        gone: How much of what was left out.
        base_model: As the command names it; None if it names none.
        facts: Of the base model.
    """
    depends = any(each.needs_base_weights for each in content.layers)
    return {
        "from": Path(path).name,
        "digest": content.info.digest,
        "sha256": content.info.file_sha256,
        "kinds": list(content.info.kinds),
        "family": content.info.family,
        "base_model": base_model if depends else None,
        "base_model_digest": facts.digest if depends and facts is not None else None,
        "left_out": gone,
        "limits": {"max_rank": limits.max_rank, "max_error": limits.max_error},
        "error": plain.error,
        "layers": {
            ".".join(place): {
                "rank": layer.factor.rank,
                "error": layer.error,
                "is_cut": layer.is_cut,
            }
            for place, layer in plain.layers.items()
        },
    }


def converted_file(
    file: Path,
    content: LoraContent,
    plain: "PlainLora",
    account: dict[str, Any],
    *,
    naming: "Naming",
    half: bool,
    is_xl: bool,
) -> bytes:
    """Return the file, with its account and what the trainer wrote in the metadata.

    Args:
        file: The adapter, for messages.
        content: Of that file.
        plain: What it became.
        account: From ``conversion``.
        naming: Whose names the tensors get.
        half: Write float16 instead of float32.
        is_xl: The base model is a Stable Diffusion XL.

    Raises:
        LoraFileError: A value is not finite, in this precision at least.
    """
    import torch
    from safetensors.torch import save

    from clora_core.lora.plain_file import not_finite, plain_metadata, plain_tensors, tensors_digest

    dtype: torch.dtype = torch.float16 if half else torch.float32
    tensors = plain_tensors(plain.factors, naming=naming, dtype=dtype, is_xl=is_xl)
    wrong = not_finite(tensors)
    if wrong:
        raise LoraFileError(
            f"{file} as a plain LoRA has {len(wrong):,} of {len(tensors):,} tensors with values "
            f"that are not finite in {'float16' if half else 'float32'}, the first is {wrong[0]}; "
            + ("leave --half out" if half else "an earlier checkpoint may do")
        )
    notes = trainer_notes(content.header.metadata, content.config)
    metadata = {
        **_kept(content.header.metadata),
        **plain_metadata(plain.factors, naming),
        METADATA_KEY: json.dumps(
            {**account, "tensors_sha256": tensors_digest(tensors)}, sort_keys=True
        ),
        "modelspec.title": notes.title or file.stem,
        "modelspec.description": f"Converted to a plain LoRA; see {METADATA_KEY}.",
    }
    return save(tensors, metadata)


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what a trainer has written of its LoRA: licence, words, training."""
    return {
        name: value
        for name, value in metadata.items()
        if name.startswith(("ss_", "modelspec.", "license", "trigger_phrase"))
        and not name.startswith(_NOT_KEPT)
        and len(value) <= _MAX_KEPT_CHARACTERS
    }
