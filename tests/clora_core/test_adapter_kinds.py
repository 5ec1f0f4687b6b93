"""Adapter files of every trainer, kind and spelling do what their trainer's own code does."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from adapters.__main__ import DOCUMENT, TABLE
from adapters.case import FAMILIES, AdapterCase, Components, Family
from adapters.cases import BY_NAME, CASES, TRAINERS, write_case
from adapters.layers import read_components
from adapters.table import table
from oracles.adapter_effects import assert_effects
from oracles.fixtures import tiny_sd_dir, tiny_sdxl_dir  # noqa: F401

from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import lora_report

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*LoRA tensor.* have invalid shape"),  # of a bias
]

REFUSED: Mapping[str, tuple[str, str]] = {
    "ia3 output": ("on_input'; LoRA, LoCon", "is an IA3"),
    "ia3 input": ("on_input'; LoRA, LoCon", "is an IA3"),
    "ia3": ("ia3_l'; LoRA, LoCon", "is an IA3"),
    "vera": ("vera_lambda_b'; LoRA, LoCon", "is a VeRA"),
}
"""Kinds that are not read: what the run says, and what is said beforehand."""

FIRST = {trainer.name: trainer.spellings[0] for trainer in TRAINERS}
KINDS = [c for c in CASES if c.family == "sd15" and c.spelling == FIRST[c.trainer]]
"""Every kind and every precision in one spelling."""

SPELLINGS = {(c.trainer, c.spelling, c.family): c for c in CASES}.values()
"""Every spelling in both families."""

CHOSEN = sorted({*KINDS, *SPELLINGS}, key=str)
"""Kinds and spellings don't meet elsewhere; `python -m fuzz --cases` reads all of the corpus."""

EACH = 4
"""Every so many-th layer of a case is written here, another one in each."""


@pytest.fixture(scope="module")
def single(tiny_sd_dir: Path, tiny_sdxl_dir: Path) -> Mapping[Family, Components]:  # noqa: F811
    return {"sd15": read_components(tiny_sd_dir), "sdxl": read_components(tiny_sdxl_dir)}


@pytest.fixture(scope="module")
def double(single: Mapping[Family, Components]) -> Mapping[Family, Components]:
    return {
        family: {name: copy.deepcopy(model).double() for name, model in components.items()}
        for family, components in single.items()
    }


@pytest.mark.parametrize(("number", "case"), list(enumerate(CHOSEN)), ids=str)
def test_a_file_does_what_its_trainers_code_does(
    number: int, case: AdapterCase, single: Mapping, double: Mapping, tmp_path: Path
):
    layers = BY_NAME[case.trainer].layers(case, single[case.family])
    chosen = tuple(layer.place for layer in layers[number % min(EACH, len(layers)) :: EACH])
    expected = write_case(tmp_path, replace(case, places=chosen), single[case.family])
    model = lora_targets(single[case.family])
    if case.kind in REFUSED:
        in_run, beforehand = REFUSED[case.kind]
        with pytest.raises(LoraFileError, match=f"that are no part of a LoRA, such as .*{in_run}"):
            read_lora(expected.path, model)
        with pytest.raises(LoraFileError, match=beforehand):
            lora_report(expected.path)
        return
    lora = read_lora(expected.path, model)
    assert_effects(lora, expected, double[case.family])
    assert lora_report(expected.path).info.num_layers == len(expected.effects)
    assert bool(lora.words) == (case.kind == "lora with embeddings")


def documented() -> Mapping[tuple[str, str, str, str], str]:
    """Return the verdicts of the manual, by trainer, kind, spelling and family."""
    found: dict[tuple[str, str, str, str], str] = {}
    written = TABLE.search(DOCUMENT.read_text())
    assert written
    for line in written[0].strip().splitlines()[2:]:
        trainer, kinds, spellings, *cells = line.strip("| ").split(" | ")
        found |= {
            (trainer, kind, spelling, family): cell
            for kind in kinds.split(", ")
            for spelling in spellings.split(", ")
            for family, cell in zip(FAMILIES, cells, strict=True)
        }
    return found


def test_the_manuals_table_is_that_of_the_corpus_and_of_what_is_refused():
    """`python -m adapters` writes it."""
    said = documented()
    for case in CASES:
        verdict = said[case.trainer, case.kind, case.spelling, case.family]
        _, beforehand = REFUSED.get(case.kind, ("", ""))
        assert verdict == (beforehand.replace("is ", "refused: ", 1) or "read"), case
    written = TABLE.search(DOCUMENT.read_text())
    assert written
    assert written[0] == table(lambda c: said[c.trainer, c.kind, c.spelling, c.family]) + "\n"
