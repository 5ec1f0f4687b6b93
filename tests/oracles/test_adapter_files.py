"""The corpus of adapters holds to what it says of itself."""

from pathlib import Path

import pytest
from adapters.case import AdapterCase, Components
from adapters.cases import CASES, TRAINERS, WITHOUT, combinations, write_case
from adapters.layers import read_components
from adapters.many import many_cases, write_many
from adapters.table import NO_FILE, table
from safetensors import safe_open
from torch import nn

from emoji_world import base_model_dir

pytestmark = pytest.mark.filterwarnings("ignore:.*pattern keys did not match:RuntimeWarning")

FIRST = {trainer.name: (trainer.kinds[0], trainer.spellings[0]) for trainer in TRAINERS}
# Every kind in one spelling and every spelling of one kind; names and tensors don't meet elsewhere.
SD15 = [
    case
    for case in CASES
    if case.family == "sd15"
    and (case.kind == FIRST[case.trainer][0] or case.spelling == FIRST[case.trainer][1])
]
SDXL = {(c.trainer, c.spelling): c for c in CASES if c.family == "sdxl" and c.kind != "lora text 2"}


@pytest.fixture(scope="session")
def sd15(tiny_sd_dir: Path) -> Components:
    return read_components(tiny_sd_dir)


@pytest.fixture(scope="session")
def sdxl(tiny_sdxl_dir: Path) -> Components:
    return read_components(tiny_sdxl_dir)


@pytest.mark.parametrize("case", SD15, ids=str)
def test_a_file_changes_weights_by_a_fair_share(
    case: AdapterCase, sd15: Components, tmp_path: Path
):
    _check(case, sd15, tmp_path)


@pytest.mark.parametrize("case", SDXL.values(), ids=str)
def test_so_does_one_of_every_spelling_for_sdxl(
    case: AdapterCase, sdxl: Components, tmp_path: Path
):
    _check(case, sdxl, tmp_path)


def _check(case: AdapterCase, components: Components, folder: Path) -> None:
    before = {name: _sums(model) for name, model in components.items()}
    expected = write_case(folder, case, components)
    for place, difference in expected.weight.items():
        weight = components[place[0]].get_submodule(place[1]).weight.detach().double()
        assert difference.shape == weight.shape
        assert 0.05 < float(difference.norm() / weight.norm()) < 0.7, place
    assert all(bool(difference.any()) for difference in expected.bias.values())
    with safe_open(expected.path, framework="pt") as file:
        names = list(file.keys())
        dtypes = {str(file.get_slice(name).get_dtype()) for name in names}
    assert len(names) >= len(expected.effects)
    assert case.dtype in dtypes
    assert {name: _sums(model) for name, model in components.items()} == before


def _sums(model: nn.Module) -> float:
    return sum(float(parameter.detach().double().sum()) for parameter in model.parameters())


def test_a_case_is_written_the_same_twice(sd15: Components, tmp_path: Path):
    case = next(case for case in SD15 if case.kind == "lokr both")
    (tmp_path / "again").mkdir()
    first, second = (write_case(folder, case, sd15) for folder in (tmp_path, tmp_path / "again"))
    assert first.path.read_bytes() == second.path.read_bytes()


def test_every_combination_is_a_case_or_has_a_reason_not_to_be():
    have = {(case.trainer, case.kind, case.spelling, case.family) for case in CASES}
    every = {(trainer.name, *rest) for trainer in TRAINERS for rest in combinations(trainer)}
    assert have | WITHOUT.keys() == every
    assert not have & WITHOUT.keys()
    assert all(WITHOUT.values())


def test_cases_have_names_of_their_own():
    assert len({str(case) for case in CASES}) == len(CASES)


def test_many_files_are_small_and_differ(tmp_path: Path):
    components = read_components(base_model_dir())
    written = list(write_many(tmp_path, components, count=30))
    sizes = [expected.path.stat().st_size for _, expected in written]
    assert max(sizes) < 300_000
    assert len({expected.path.read_bytes() for _, expected in written}) == 30
    cases = list(many_cases(components, count=1000))
    assert cases[:30] == [case for case, _ in written]
    assert len(set(cases)) == 1000
    assert {case.trainer for case in cases} == {trainer.name for trainer in TRAINERS}


def test_the_table_has_each_answer_once():
    said = table(lambda case: "refused: no" if case.trainer == "peft" else "read")
    rows = [line.strip("| ").split(" | ") for line in said.splitlines()[2:]]
    assert ["ai-toolkit", "lora, locon", "kohya sgm", NO_FILE, "read"] in rows
    assert ["peft", "lora text 2", "peft", NO_FILE, "refused: no"] in rows
    assert sum(row[0] == "LyCORIS" for row in rows) == 1
