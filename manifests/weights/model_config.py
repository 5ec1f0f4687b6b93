"""One JSON file of a model folder, or a sentence on why it is none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import CloraError
from manifests.places.regular_file import irregularity


class BaseModelProblem(CloraError):  # noqa: N818  (a finding about a folder, not a fault of ours)
    """The folder is no base model; the message is a sentence that names it and the way out."""


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
