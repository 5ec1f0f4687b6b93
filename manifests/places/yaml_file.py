"""The one door for YAML files: jobs, sweeps, catalogs and specs are read and refused alike."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from manifests.places.locations import LocationError, read_bytes
from manifests.text.given_names import checked
from manifests.text.problems import InputError, Problem, problems_at
from manifests.text.sections import Section, section_of
from manifests.text.wording import shown
from manifests.text.yaml_text import YamlError, load_yaml

Model = TypeVar("Model", bound=BaseModel)


def read_text(place: str, *, max_bytes: int) -> str:
    """Return the text of the file at ``place``, an absolute path or a URI.

    Raises:
        InputError: It cannot be read, is larger, or is not UTF-8.
    """
    try:
        return read_bytes(place, max_bytes=max_bytes).decode("utf-8-sig")
    except LocationError as error:
        raise file_problem(place, str(error)) from error
    except UnicodeDecodeError as error:
        raise file_problem(place, f"is not UTF-8 text (byte {error.start})") from error


def read_mapping(place: str, *, max_bytes: int, expected: str) -> dict[str, Any]:
    """Return the mapping that the YAML file at ``place`` holds.

    Args:
        place: An absolute path or a URI.
        max_bytes: Larger files are refused.
        expected: What the file should be, for the sentence: ``a mapping with ...``.

    Raises:
        InputError: It cannot be read, is not YAML, or holds something else.
    """
    return parse_mapping(read_text(place, max_bytes=max_bytes), place=place, expected=expected)


def parse_mapping(text: str, *, place: str, expected: str) -> dict[str, Any]:
    """Return the mapping that a YAML text holds; arguments and errors as ``read_mapping``."""
    try:
        values = load_yaml(text)
    except YamlError as error:
        where = f"line {error.line}: " if error.line else ""
        raise file_problem(place, f"{where}is not valid YAML: {error}") from error
    return as_mapping(values, place=place, expected=expected)


def as_mapping(values: object, *, place: str, expected: str) -> dict[str, Any]:
    """Return ``values`` with texts as keys; InputError if they are no mapping."""
    if not isinstance(values, Mapping):
        raise file_problem(place, f"should be {expected}, got {shown(values)}")
    return {str(name): value for name, value in cast("Mapping[object, Any]", values).items()}


def validated(
    model: type[Model],
    given: Mapping[str, Any],
    *,
    place: str,
    section: Section | None = None,
) -> Model:
    """Return the settings that ``given`` says; null means not given.

    Args:
        model: What they should be.
        given: What the file says.
        place: The file, for messages.
        section: The names that it may hold; those of ``model`` if None.

    Raises:
        InputError: With a problem for every setting that does not hold.
    """
    values = {name: value for name, value in given.items() if value is not None}
    settings, findings = checked(model, values, section or section_of(model))
    if findings or settings is None:
        raise InputError(problems_at(place, findings))
    return settings


def file_problem(place: str, text: str) -> InputError:
    """Return the error of a file that is wrong as a whole."""
    return InputError([Problem(place=place, field="(file)", problem=text)])
