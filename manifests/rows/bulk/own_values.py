"""What each row says by itself (prompt, seed, id, columns of its own), checked column by column.

A value that passes is right for sure. One that does not may be right, too: whether it is, and the
sentence if it isn't, is for ``row_check``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clora_core.recipe.reading.syntax import SIGNS
from manifests.rows.bulk.groups import Group
from manifests.rows.schema import ManifestRow, value_json
from manifests.text.text_rules import MAX_NAME_CHARACTERS, MAX_PROMPT_CHARACTERS
from manifests.text.whole_numbers import MAX_SEED, seed_number

SHARED_COLUMNS = ("base_model", "loras", "method", "sampler", "width", "height")
"""Columns that many rows say the same in."""

_CONTROL = "[\\x00-\\x1f\\x7f-\\x9f\\x{2028}\\x{2029}]"
_SEEN = r"[!-~\p{L}\p{N}]"
_NO_SEED = -1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Texts:
    """A column of texts.

    Attributes:
        values: Its texts, empty where there is none.
        cells: The same.
        is_right: Whether a text holds to the rules of texts.
        has_signs: Whether it may say more than its words.
        num_bytes: Of each.
        is_ascii: Whether each is.
    """

    values: list[str]
    cells: pa.Array
    is_right: np.ndarray
    has_signs: np.ndarray
    num_bytes: np.ndarray
    is_ascii: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OwnValues:
    """What each row of a group says by itself.

    Attributes:
        prompts: Of each.
        negatives: Of each.
        seeds: Of each.
        ids: Of each, None where it gives none.
        carried: As canonical JSON; None where no row carries anything.
        is_right: Whether all of these hold to their rules.
        has_signs: Whether a text may say more than its words.
    """

    prompts: Texts
    negatives: Texts
    seeds: list[int]
    ids: Sequence[str | None]
    carried: list[str] | None
    is_right: np.ndarray
    has_signs: np.ndarray


def own_values(group: Group) -> OwnValues | None:
    """Return what each row says by itself; None where that has to be looked at row by row."""
    if "seed" not in group.columns or "prompt" not in group.columns:
        return None
    try:
        prompts = _texts_of(group, "prompt")
        negatives = _texts_of(group, "negative_prompt", may_be_blank=True)
        ids = _ids_of(group)
        if prompts is None or negatives is None or ids is None:
            return None
        seeds, are_seeds = _seeds_of(group)
        carried, can_be_carried = _carried_of(group)
    except (RecursionError, ValueError, OverflowError, pa.ArrowException):
        return None
    return OwnValues(
        prompts=prompts,
        negatives=negatives,
        seeds=seeds,
        ids=ids[0],
        carried=carried,
        is_right=prompts.is_right & negatives.is_right & ids[1] & are_seeds & can_be_carried,
        has_signs=prompts.has_signs | negatives.has_signs,
    )


def _texts_of(group: Group, name: str, *, may_be_blank: bool = False) -> Texts | None:
    """Return a group's prompts or negative prompts; None if the column holds other things."""
    cells = _text_cells(group.columns.get(name), len(group))
    if cells is None:
        return None
    is_right = ~_matches(cells, _CONTROL)
    is_right &= np.asarray(pc.call_function("utf8_length", [cells])) <= MAX_PROMPT_CHARACTERS
    if not may_be_blank:
        is_right &= _matches(cells, _SEEN)
    return Texts(
        values=cells.to_pylist(),
        cells=cells,
        is_right=is_right,
        has_signs=_matches(cells, SIGNS),
        num_bytes=np.asarray(pc.call_function("binary_length", [cells])).astype(np.int64),
        is_ascii=np.asarray(pc.call_function("string_is_ascii", [cells])),
    )


def _ids_of(group: Group) -> tuple[Sequence[str | None], np.ndarray] | None:
    """Return the id of each row, and whether it holds to the rules; None for other things."""
    if "row_id" not in group.columns:
        return [None] * len(group), np.ones(len(group), bool)
    given = group.columns["row_id"]
    if isinstance(given, list):
        values = cast("list[object]", given)
        if all(type(value) is int for value in values):
            given = list(map(str, values))
    elif pa.types.is_integer(given.type):
        given = given.cast(pa.string())
    cells = _text_cells(given, len(group))
    if cells is None:
        return None
    is_right = ~_matches(cells, _CONTROL) & _matches(cells, _SEEN)
    is_right &= np.asarray(pc.call_function("utf8_length", [cells])) <= MAX_NAME_CHARACTERS
    return cells.to_pylist(), is_right


def _seeds_of(group: Group) -> tuple[list[int], np.ndarray]:
    """Return the seed of each row, and whether it is one."""
    values = group.values("seed")
    may_be_short = "seed" in group.exact_to
    seeds = [
        value if type(value) is int and 0 <= value <= MAX_SEED else _seed(value, may_be_short)
        for value in values
    ]
    return seeds, np.array(seeds) != _NO_SEED


def _carried_of(group: Group) -> tuple[list[str] | None, np.ndarray]:
    """Return what each row carries along as canonical JSON (None for nothing), and whether it can.

    Raises:
        RecursionError: A value is nested too deeply.
        ValueError: Python cannot hold a value.
        OverflowError: Likewise.
    """
    is_right = np.ones(len(group), bool)
    names = sorted(set(group.columns) - ManifestRow.model_fields.keys() | {"base_model"})
    names = [name for name in names if name in group.columns]
    if not names:
        return None, is_right
    parts: list[list[str]] = []
    for name in names:
        codes = group.codes(name)
        first, inverse = np.unique(codes, return_index=True, return_inverse=True)[1:]
        cells = group.columns[name]
        one_each = [
            cells[number] if isinstance(cells, list) else cells[number].as_py()
            for number in first.tolist()
        ]
        if name == "base_model":  # an empty one is not carried
            is_right &= np.array([bool(value) for value in one_each])[inverse]
        lead = f"{quoted(name)}:"
        texts = [lead + value_json(value) for value in one_each]
        parts.append([texts[code] for code in inverse.tolist()])
    if len(parts) == 1:
        return [f"{{{text}}}" for text in parts[0]], is_right
    return [f"{{{','.join(each)}}}" for each in zip(*parts, strict=True)], is_right


def _text_cells(given: Any, num_rows: int) -> pa.Array | None:
    if given is None:
        return pa.array([""] * num_rows, pa.string())
    if isinstance(given, list):
        if not all(type(value) is str for value in given):
            return None
        try:
            return pa.array(given, pa.string())
        except (UnicodeEncodeError, pa.ArrowException):  # half of a surrogate pair
            return None
    kind = given.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return given.cast(pa.string()) if is_text or pa.types.is_string_view(kind) else None


def _matches(cells: pa.Array, pattern: str) -> np.ndarray:
    options = pc.MatchSubstringOptions(pattern)
    return np.asarray(pc.call_function("match_substring_regex", [cells], options))


def _seed(value: object, may_be_short: bool) -> int:
    if may_be_short and isinstance(value, float):
        return _NO_SEED
    try:
        return seed_number(value)
    except ValueError:
        return _NO_SEED
