"""``clora show``: what a picture says of itself."""

import json
import sys
from pathlib import Path

from jobs.picture import PictureError, read_picture
from jobs.recipe import checked_recipe
from manifests.problems import MAX_SHOWN, Problem
from manifests.text_rules import printable

__all__ = ["show"]


def show(path: Path) -> int:
    """Print a picture's infotext and recipe.

    Returns:
        The exit code: 0, or 2 if it has none, or one that does not hold; then what is wrong with it
        is on standard error.
    """
    try:
        picture = read_picture(path)
    except PictureError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    recipe = json.dumps(picture.recipe, indent=2, ensure_ascii=False)
    for line in (*picture.parameters.splitlines(), "", *recipe.split("\n")):
        print(printable(line))
    height_px, width_px = picture.pixels.shape[:2]
    _, findings = checked_recipe(picture.recipe, width_px=width_px, height_px=height_px)
    for field, text in findings[:MAX_SHOWN]:
        problem = Problem(place=str(path), field=field, problem=text)
        print(f"{printable(str(path))}: {problem}", file=sys.stderr)
    if len(findings) > MAX_SHOWN:
        print(f"... and {len(findings) - MAX_SHOWN:,} more", file=sys.stderr)
    return 2 if findings else 0
