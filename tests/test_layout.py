"""What the documents say of the tree, held against the tree."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("clora_core", "manifests", "pipelines", "jobs", "cluster", "emoji_world")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_MODULES = 16

MODULE = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)")
FILE = re.compile(rf"`((?:{'|'.join((*PACKAGES, 'tests', 'benchmarks'))})/[\w/.-]+\.py)`")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_is_too_full_to_look_through(package: str):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    full = {
        str(folder.relative_to(ROOT)): len(modules)
        for folder in folders
        if len(modules := [path for path in folder.glob("*.py") if path.stem[0] != "_"])
        > MOST_MODULES
    }
    assert not full


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path):
    named = FILE.findall(document.read_text())
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_a_document_names_exist(document: Path):
    assert [name for name in MODULE.findall(document.read_text()) if not is_there(name)] == []


def is_there(name: str) -> bool:
    """Return whether a dotted name is a module, a package, or a name within a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.is_dir() and length == len(parts):
            return True
        if (module := path.with_suffix(".py")).is_file():
            rest = parts[length:]
            return not rest or re.search(rf"\b{rest[0]}\b", module.read_text()) is not None
    return False


def test_the_walk_from_the_command_to_the_commit_has_ten_steps_that_exist():
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition("## The tree")[0]
    steps = re.findall(r"^\d+\. (.+)$", walk, re.MULTILINE)
    assert len(steps) == 10
    assert all((ROOT / re.findall(r"`([\w/]+\.py)`", step)[0]).is_file() for step in steps)
