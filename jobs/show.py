"""``clora show``: what a picture says of itself."""

import json
import sys
from pathlib import Path

from jobs.picture import PictureError, read_picture
from manifests.text_rules import printable

__all__ = ["show"]


def show(path: Path) -> int:
    """Print a picture's infotext and recipe; return the exit code: 0, or 2 if it has none."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        print(error, file=sys.stderr)
        return 2
    recipe = json.dumps(picture.recipe, indent=2, ensure_ascii=False)
    for line in (*picture.parameters.splitlines(), "", *recipe.split("\n")):
        print(printable(line))
    return 0
