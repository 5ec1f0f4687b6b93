"""What tests of the cluster files share."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "cluster/kubernetes"


def load(name: str) -> dict[str, Any]:
    """Return the one document of a Kubernetes file."""
    return yaml.safe_load((FOLDER / name).read_text())
