"""``clora show``: what a picture says of itself."""

import json
import sys
from pathlib import Path

from jobs.picture import PictureError, read_picture

__all__ = ["show"]


def show(path: Path) -> int:
    """Print a picture's infotext and recipe; return the exit code: 0, or 2 if it has none."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        print(error, file=sys.stderr)
        return 2
    print(picture.parameters)
    print()
    print(json.dumps(picture.recipe, indent=2, ensure_ascii=False))
    return 0
