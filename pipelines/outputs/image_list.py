"""``images.csv``: a line for each row of the manifest, with file and scores, or why there are none.

For people with a spreadsheet and programs that read nothing else. It is a copy of what manifest
list, rows and failures say, in the manifest's order, written again at the end of each run. It takes
the rows some at a time; in memory are the keys and scores of what is made.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.asked_rows import ASKED
from pipelines.outputs.csv_text import MARK, csv_lines
from pipelines.units.committed_image import image_name

IMAGES_CSV = "images.csv"

SCORES = ("dino_min", "dino_avg", "dino_max", "dino_apart")

_ASKED = ("row_id", "prompt", "negative_prompt", "loras", "seed", "method", "width", "height")
_COLUMNS = (
    "row_id", "file", "prompt", "negative_prompt", "loras", "seed", "method", "base_model",
    "width", "height", *SCORES, "failure", "key",
)  # fmt: skip
BEGINNING = MARK + b"row_id,file,"
"""Of every such file."""

NOT_MADE = "not made yet"

ReadAsked = Callable[[Sequence[str]], Iterator[pa.Table]]
"""Yields columns of ``ASKED``, some rows at a time, from the first one on at each call."""

FilesOf = Callable[[pa.Table], Sequence[str | None]]
"""Gives the file of each row of ``ASKED``; None if its image is lost. Of rows that are not made
what it gives is passed over."""


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """What a list is made of.

    Attributes:
        asked: Reads the rows of the manifest.
        made: key and ``SCORES`` of all committed rows, and whatever else is asked for.
        failed: The last failure of rows without an image, by key, as in ``schemas.ERRORS``.
        base_model: Of rows that name none.
    """

    asked: ReadAsked
    made: pa.Table
    failed: Mapping[str, Mapping[str, Any]]
    base_model: str


def image_files(asked: pa.Table) -> list[str | None]:
    """Return where the images of rows are in the output."""
    return [image_name(key) for key in asked["key"].to_pylist()]


def image_list(source: ListSource, files_of: FilesOf = image_files) -> Iterator[bytes]:
    """Yield the parts of the CSV file."""
    carried = carried_names(source.asked)
    titles = [f"carried.{name}" if name in _COLUMNS else name for name in carried]
    yield MARK + csv_lines([[*_COLUMNS, *titles]])
    made = source.made.select(["key", *SCORES]).combine_chunks()
    for asked in source.asked(ASKED.names):
        places = made_places(asked, made)
        files = [
            None if place is None else file
            for place, file in zip(places.to_pylist(), files_of(asked), strict=True)
        ]
        keys = asked["key"].to_pylist()
        own = list(map(_values, asked["carried_json"].to_pylist()))
        columns: dict[str, Sequence[object]] = {
            **{name: asked[name].to_pylist() for name in _ASKED},
            **{name: _rounded(made[name].take(places)) for name in SCORES},
            "file": files,
            "base_model": [values.get("base_model", source.base_model) for values in own],
            "failure": [
                None if file else _failure(key, place, source.failed)
                for key, file, place in zip(keys, files, places.to_pylist(), strict=True)
            ],
            "key": keys,
        }
        more = ([values.get(name) for values in own] for name in carried)
        yield csv_lines(zip(*(columns[name] for name in _COLUMNS), *more, strict=True))


def made_places(asked: pa.Table, made: pa.Table) -> pa.Array:
    """Return which row of ``made`` (chunks combined) each row of ``asked`` is; null for none."""
    return cast("Any", pc).index_in(
        asked["key"].combine_chunks(), value_set=made["key"].combine_chunks()
    )


def _rounded(scores: pa.ChunkedArray) -> list[float | None]:
    """Return scores without the digits that 32 bits do not have."""
    return [None if s is None else float(f"{s:.6g}") for s in scores.to_pylist()]


def _failure(key: str, place: int | None, failed: Mapping[str, Mapping[str, Any]]) -> str:
    if place is not None:
        return "its image is damaged"
    error = failed.get(key)
    return NOT_MADE if error is None else f"{error['stage']}: {error['error']}: {error['message']}"


@lru_cache(maxsize=4096)
def _values(carried_json: str | None) -> Mapping[str, Any]:
    return json.loads(carried_json or "{}")


def carried_names(asked: ReadAsked) -> list[str]:
    """Return the names of all carried columns, in the order that rows first have them."""
    names: dict[str, None] = {}
    for table in asked(["carried_json"]):
        for text in table["carried_json"].unique().to_pylist():
            names |= dict.fromkeys(_values(text))
    names.pop("base_model", None)
    return list(names)
