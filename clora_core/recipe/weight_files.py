"""Which files of a model folder its weights are loaded from, by the rules of the model libraries.

A folder may hold its weights whole or in pieces, as safetensors or as PyTorch's own files, and
in several precisions (variants). The one who checks a folder and the one who loads it ask here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

Library = Literal["diffusers", "transformers"]

NOT_LOADED = frozenset({"safety_checker", "feature_extractor"})
"""Parts of a pipeline that are left out when it is loaded."""

_STEMS: Mapping[Library, tuple[str, str]] = {
    "diffusers": ("diffusion_pytorch_model", "diffusion_pytorch_model"),
    "transformers": ("model", "pytorch_model"),
}
_NO_WEIGHTS = re.compile(r"Tokenizer|Scheduler|Processor|FeatureExtractor|Solver")


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFiles:
    """What one model's weights are loaded from.

    Attributes:
        files: All of them; empty if there is a problem.
        variant: That the loader must be asked for, such as ``fp16``; None for none.
        problem: Why there are no weights, as the end of a sentence; None if there are.
    """

    files: tuple[Path, ...] = ()
    variant: str | None = None
    problem: str | None = None


def weight_files(folder: Path, library: Library) -> WeightFiles:
    """Return what the weights of the model in ``folder`` are loaded from.

    Weights without a variant come first, and of those safetensors.

    Args:
        folder: Of one model, with its ``config.json``.
        library: That loads it.
    """
    names = _names(folder)
    safe, pickled = _STEMS[library]
    variants = sorted(_variants(names, safe, "safetensors") | _variants(names, pickled, "bin"))
    plain = _of_variant(folder, names, library, None)
    if plain is not None:
        return plain
    if len(variants) > 1:
        return WeightFiles(
            problem=f"has weights of the variants {', '.join(variants)} and none without one, so "
            f"which to load is open; keep one, or name the right one {safe}.safetensors"
        )
    found = _of_variant(folder, names, library, variants[0]) if variants else None
    if found is not None:
        return found
    there = sorted(name for name in names if name != "config.json")
    listed = f"there is {', '.join(there[:3])}" if there else "there is nothing"
    return WeightFiles(
        problem=f"has no weights that are loaded ({safe}.safetensors, or pieces of it with "
        f"{safe}.safetensors.index.json); {listed}: download the folder again, or save the model "
        "with save_pretrained"
    )


def models_of(index: Mapping[str, Any]) -> dict[str, Library]:
    """Return the models with weights that a pipeline loads, and what loads them.

    Args:
        index: Its ``model_index.json``.
    """
    found: dict[str, Library] = {}
    for name, part in index.items():
        pair = cast("list[object]", part) if isinstance(part, list) else []
        if len(pair) != 2 or name in NOT_LOADED or _NO_WEIGHTS.search(str(pair[1])):
            continue
        if pair[0] in _STEMS:
            found[name] = cast("Library", pair[0])
    return found


def pipeline_variant(folder: Path) -> str | None:
    """Return the variant that the pipeline in ``folder`` must be loaded with, None for none.

    Where its models need several, or cannot be loaded, loading says so.
    """
    try:
        index: Any = json.loads((folder / "model_index.json").read_text())
    except (OSError, ValueError):
        return None
    models = models_of(cast("dict[str, Any]", index) if isinstance(index, dict) else {})
    found = (weight_files(folder / name, library).variant for name, library in models.items())
    return next(filter(None, found), None)


def _of_variant(
    folder: Path, names: frozenset[str], library: Library, variant: str | None
) -> WeightFiles | None:
    mark = f".{variant}" if variant else ""
    for stem, suffix in zip(_STEMS[library], ("safetensors", "bin"), strict=True):
        whole = f"{stem}{mark}.{suffix}"
        index = f"{stem}.{suffix}.index{mark}.json"
        # diffusers reads pieces of safetensors alone, and prefers them to the whole.
        takes_pieces = library == "transformers" or suffix == "safetensors"
        is_first = library == "diffusers" or whole not in names
        if index in names and takes_pieces and is_first:
            return _pieces(folder, names, index, variant)
        if whole in names:
            return WeightFiles(files=(folder / whole,), variant=variant)
    return None


def _pieces(folder: Path, names: frozenset[str], index: str, variant: str | None) -> WeightFiles:
    try:
        value: Any = json.loads((folder / index).read_text())
        pieces = sorted({str(name) for name in value["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return WeightFiles(
            problem=f"has a {index} that cannot be read ({type(error).__name__}); download it again"
        )
    missing = [name for name in pieces if name not in names]
    if missing or not pieces:
        return WeightFiles(
            problem=f"lacks {len(missing):,} of the {len(pieces):,} pieces of its weights that "
            f"{index} names ({', '.join(missing[:3])}); download them"
        )
    return WeightFiles(files=tuple(folder / name for name in pieces), variant=variant)


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir() if path.is_file())
    except OSError:
        return frozenset()


def _variants(names: frozenset[str], stem: str, suffix: str) -> set[str]:
    whole = re.compile(rf"{stem}\.(\w+)\.{suffix}")
    index = re.compile(rf"{stem}\.{suffix}\.index\.(\w+)\.json")
    found = (whole.fullmatch(name) or index.fullmatch(name) for name in names)
    return {match[1] for match in found if match}
