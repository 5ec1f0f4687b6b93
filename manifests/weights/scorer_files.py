"""Whether a folder holds what ``clora_core.dino`` loads, found out without loading it."""

from pathlib import Path

from clora_core.recipe.weight_files import weight_files
from manifests.weights.model_files import config_findings, weight_findings

_PREPROCESSORS = ("preprocessor_config.json", "processor_config.json")


def scorer_findings(folder: Path) -> list[str]:
    """Return what is missing of a vision model in transformers' format, a sentence each."""
    findings = config_findings(folder, "config.json")
    present = [name for name in _PREPROCESSORS if (folder / name).exists()]
    if not present:
        findings.append(
            f"{folder} has no {_PREPROCESSORS[0]}, which says how pictures are scaled for it; "
            "download the folder again"
        )
    for name in present:
        findings += config_findings(folder, name)
    weights = weight_files(folder, "transformers")
    if weights.variant is not None:
        return [
            *findings,
            f"{folder} has its weights as the variant {weights.variant} alone, and a scorer is "
            "loaded without one; name the file model.safetensors",
        ]
    return findings + weight_findings(folder, weights)
