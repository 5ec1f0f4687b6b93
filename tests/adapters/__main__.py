"""Writes the table of what is read into `docs/loras.md`: `PYTHONPATH=tests:. python -m adapters`.

Every file of the corpus is written, and the reader is asked.
"""

import re
import tempfile
from pathlib import Path

from oracles.tiny_models import build_tiny_sd, build_tiny_sdxl

from adapters.case import AdapterCase, Components, Family
from adapters.cases import write_case
from adapters.layers import read_components
from adapters.table import table
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import lora_report

DOCUMENT = Path(__file__).parents[2] / "docs" / "loras.md"
TABLE = re.compile(r"(?<=<!-- table of adapters -->\n\n).*?(?=<!-- end -->)", re.DOTALL)
_IS = re.compile(r" is (an? [\w-]+)")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models: dict[Family, Components] = {
            "sd15": read_components(build_tiny_sd(folder / "sd15")),
            "sdxl": read_components(build_tiny_sdxl(folder / "sdxl")),
        }
        text = table(lambda case: verdict(case, models[case.family], folder))
    DOCUMENT.write_text(TABLE.sub(lambda _: f"{text}\n", DOCUMENT.read_text()))


def verdict(case: AdapterCase, components: Components, folder: Path) -> str:
    """Return ``read``, or ``refused: `` and what the file is instead.

    Raises:
        AssertionError: It is refused in the run and not beforehand.
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    path = write_case(place, case, components).path
    try:
        read_lora(path, lora_targets(components))
    except LoraFileError:
        pass
    else:
        return "read"
    found = _IS.search(_refusal(path))
    assert found, path
    return f"refused: {found[1]}"


def _refusal(path: Path) -> str:
    try:
        lora_report(path)
    except LoraFileError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
