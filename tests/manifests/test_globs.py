"""Globs match what their definition says, and end however many stars they have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.places.globs import glob_pattern


def matches(glob: str, path: str) -> bool:
    """Return whether ``path`` matches, by trying every share of every star."""
    if not glob:
        return not path
    if glob.startswith("**/"):
        rests = [path[end + 1 :] for end in range(len(path)) if _is_folders(path[: end + 1])]
        return any(matches(glob[3:], rest) for rest in (path, *rests))
    if glob.startswith("**"):
        return any(matches(glob[2:], path[end:]) for end in range(len(path) + 1))
    if glob.startswith("*"):
        name = path.partition("/")[0]
        return any(matches(glob[1:], path[end:]) for end in range(len(name) + 1))
    if not path:
        return False
    is_here = path[0] != "/" if glob[0] == "?" else path[0] == glob[0]
    return is_here and matches(glob[1:], path[1:])


def _is_folders(text: str) -> bool:
    return text.endswith("/") and all(text[:-1].split("/"))


@given(
    st.lists(st.sampled_from(["*", "?", "a", "b", "/", "**", "**/"]), max_size=7).map("".join),
    st.text("ab/", max_size=9),
)
def test_a_glob_matches_what_trying_every_share_matches(glob: str, path: str):
    if glob.count("**") <= 2:
        assert (glob_pattern(glob).fullmatch(path) is not None) == matches(glob, path)


@pytest.mark.parametrize(
    ("glob", "names"),
    [
        ("[ab]", ["a", "b"]),
        ("[a-c]", ["a", "b", "c"]),
        ("[!a]", ["b", "c", "-", "!", "^"]),
        ("[!]", ["!"]),
        ("[^a]", ["a", "^"]),
        ("[c-a]", []),
        ("[c-ab]", ["b"]),
        ("[a-]", ["a", "-"]),
    ],
)
def test_characters_in_brackets_are_as_in_a_shell(glob: str, names: list[str]):
    found = [name for name in "abc-!^/" if glob_pattern(glob).fullmatch(name)]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize(
    "glob", ["*?" * 30 + "z", "*0*1" * 20 + "z", "*" + "a*" * 1 + "?*" * 40 + "z"]
)
def test_a_glob_with_many_stars_ends(glob: str):
    """With every share tried, these would run for longer than anyone lives."""
    assert glob_pattern(f"/rows/{glob}").fullmatch("/rows/" + "0123456789abcdef" * 15) is None


@pytest.mark.parametrize("glob", ["**/**/**/x", "***/**/**", "a**b**c**d"])
def test_a_glob_that_crosses_folders_too_often_is_refused(glob: str):
    with pytest.raises(ValueError, match="more than 2 times"):
        glob_pattern(glob)
