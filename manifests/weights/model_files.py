"""Whether a folder holds all that loading a base model takes, found out without loading it.

Model libraries say what is missing when a run has begun, after a download and a queue, and of some
things they say nothing: a tokenizer without a vocabulary makes one token of every word.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.weight_files import NOT_LOADED, WeightFiles, models_of, weight_files
from manifests.weights.header import read_header
from manifests.weights.model_config import BaseModelProblem, model_config
from manifests.weights.tokenizer_files import tokenizer_findings

MAX_WEIGHT_FILE_BYTES = 64 * 1024**3

_NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def pipeline_findings(root: Path, index: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the parts of a pipeline, a sentence each.

    Args:
        root: The folder.
        index: Its ``model_index.json``. One that names no part says nothing to check.
    """
    parts = _parts(index)
    if not parts:
        return []
    findings = [
        f"{root / 'model_index.json'} names no {name}, and Stable Diffusion 1.x, 2.x and XL have "
        f"{', '.join(_NEEDED)}; name a folder of such a model"
        for name in _NEEDED
        if name not in parts
    ]
    weights: dict[str, WeightFiles] = {}
    for name, library in models_of(index).items():
        findings += config_findings(root / name, "config.json")
        weights[name] = weight_files(root / name, library)
        findings += weight_findings(root / name, weights[name])
    if "scheduler" in parts:
        findings += config_findings(root / "scheduler", "scheduler_config.json")
    variants = {found.variant: name for name, found in weights.items() if found.variant is not None}
    if len(variants) > 1:
        listed = ", ".join(f"{name} as {variant}" for variant, name in variants.items())
        findings.append(
            f"{root} has weights in more than one variant and not without ({listed}), and a model "
            "is loaded in one; download all parts in the same variant"
        )
    for name, kind in parts.items():
        if name.startswith("tokenizer") and kind.startswith("CLIPTokenizer"):
            encoder = root / name.replace("tokenizer", "text_encoder", 1)
            findings += tokenizer_findings(root / name, encoder)
    return findings


def config_findings(folder: Path, name: str) -> list[str]:
    """Return why the JSON object ``name`` in ``folder`` cannot be read; nothing if it can."""
    if not (folder / name).exists():
        return [f"{folder} has no {name}; download the folder again, or save the model anew"]
    try:
        model_config(folder, name)
    except BaseModelProblem as error:
        return [str(error)]
    return []


def weight_findings(folder: Path, weights: WeightFiles) -> list[str]:
    """Return what is wrong with the weights of the model in ``folder``."""
    if weights.problem is not None:
        return [f"{folder} {weights.problem}"]
    findings: list[str] = []
    for file in weights.files:
        if file.suffix == ".safetensors":
            try:
                read_header(file, max_file_bytes=MAX_WEIGHT_FILE_BYTES)
            except LoraFileError as error:
                findings.append(str(error))
    return findings


def _parts(index: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts that are loaded, by name, and the class of each."""
    found: dict[str, str] = {}
    for name, part in index.items():
        pair = cast("list[object]", part) if isinstance(part, list) else []
        if len(pair) == 2 and all(isinstance(item, str) for item in pair):
            found[name] = str(pair[1])  # one that a pipeline leaves out stands as [null, null]
    return {name: kind for name, kind in found.items() if name not in NOT_LOADED}
