"""``clora show``: what a picture says of itself."""

import json
from pathlib import Path

from jobs.exit_code import ALL_MADE, BAD_INPUT, command
from jobs.notes import note
from jobs.pictures.picture import read_picture
from jobs.pictures.recipe import checked_recipe
from manifests.text.problems import MAX_SHOWN, Problem
from manifests.text.text_rules import printable
from manifests.text.wording import first_lines


@command()
def show(path: Path) -> int:
    """Print a picture's infotext and recipe.

    Returns:
        The exit code: 0, or 2 if it has none, or one that does not hold; then what is wrong with it
        is on standard error.
    """
    picture = read_picture(path)
    recipe = json.dumps(picture.recipe, indent=2, ensure_ascii=False)
    for line in (*picture.parameters.splitlines(), "", *recipe.split("\n")):
        print(printable(line))
    height_px, width_px = picture.pixels.shape[:2]
    _, findings = checked_recipe(picture.recipe, width_px=width_px, height_px=height_px)
    problems = [Problem(place=str(path), field=name, problem=text) for name, text in findings]
    for line in first_lines([f"{path}: {problem}" for problem in problems], MAX_SHOWN):
        note(line)
    return BAD_INPUT if findings else ALL_MADE
