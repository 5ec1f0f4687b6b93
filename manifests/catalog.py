"""The LoRA catalog: names that rows use, and the files, nouns and licences behind them.

A YAML file with a list under ``loras:`` or a Parquet file with the same columns. Relative files
are relative to the catalog, so that a folder with a catalog and its LoRAs can be moved.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from clora_core.recipe.row import LoraKind
from manifests.allowed_roots import EVERYWHERE, AllowedRoots, named
from manifests.guarded_parquet import open_batches
from manifests.locations import LocationError, absolute, parent, read_bytes
from manifests.parquet_rows import parquet_rows
from manifests.problems import Problem
from manifests.text_rules import LoraName, ShortText
from manifests.wording import did_you_mean, nearest, sentences, shown
from manifests.yaml_text import YamlError, load_yaml, numbered_items

__all__ = ["Catalog", "LoraEntry", "read_catalog"]

MAX_CATALOG_BYTES = 64 * 1024**2
MAX_ENTRIES = 1_000_000


def _is_sha256(value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"[0-9a-fA-F]{64}", value) is None:
        raise ValueError("should be the 64 hexadecimal digits of the file's sha256")
    return value.lower() if value else None


class LoraEntry(BaseModel):
    """One LoRA of the catalog.

    Attributes:
        name: What rows call it.
        uri: Absolute path or URI of the safetensors file.
        subject: The noun that a concept stands for in prompts; a row may name another.
        trigger: Words that call the LoRA up, put before the subject.
        kind: ``concept`` stands for a subject, ``style`` acts on the whole image.
        weight: Factor of its effect where a row gives none; 1 is as trained.
        license: Licence of the weights, for the data card.
        source_url: Where they came from, for the data card.
        sha256: Of the file; a file with another one is refused.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: LoraName
    uri: ShortText
    subject: ShortText | None = None
    trigger: ShortText | None = None
    kind: LoraKind = "concept"
    weight: Annotated[float, Field(ge=-10.0, le=10.0, allow_inf_nan=False)] = 1.0
    license: str | None = None
    source_url: str | None = None
    sha256: Annotated[str | None, AfterValidator(_is_sha256)] = None


_FIELDS = tuple(LoraEntry.model_fields)


@dataclass(frozen=True, kw_only=True)
class Catalog(Mapping[str, LoraEntry]):
    """The LoRAs by name, and what is wrong with the rest.

    Attributes:
        place: The file it was read from.
        entries: The good ones.
        problems: The others', one sentence each.
    """

    place: str
    entries: Mapping[str, LoraEntry]
    problems: tuple[Problem, ...] = ()

    def __getitem__(self, name: str) -> LoraEntry:
        """Return the LoRA called ``name``."""
        return self.entries[name]

    def __iter__(self) -> Any:
        """Return the names in the catalog's order."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return how many LoRAs there are."""
        return len(self.entries)


def read_catalog(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> Catalog:
    """Return the catalog at ``uri`` (absolute path or URI); what is wrong is in its problems.

    Args:
        uri: The catalog.
        allowed: Where it and its LoRA files may be; what is elsewhere is a problem.
    """
    try:
        allowed.check(uri)
        items, lines = (
            _parquet_items(uri)
            if uri.partition("?")[0].endswith((".parquet", ".pq"))
            else _yaml_items(uri)
        )
    except (_NotACatalogError, LocationError) as error:
        problem = Problem(place=uri, field="(file)", problem=str(error))
        return Catalog(place=uri, entries={}, problems=(problem,))
    entries: dict[str, LoraEntry] = {}
    problems: list[Problem] = []
    for item, line in zip(items, lines, strict=True):
        entry, findings = _entry(item, folder=parent(uri))
        refusal = None if entry is None else allowed.refusal(entry.uri)
        if entry is not None and refusal is not None:
            entry, findings = None, [("uri", f"{named(entry.uri)} {refusal}")]
        name = item.get("name") if isinstance(item, Mapping) else None
        if entry is not None and entry.name in entries:
            entry, findings = (
                None,
                [("name", f"is used twice, got {shown(name)}; names are unique")],
            )
        problems.extend(
            Problem(
                place=uri,
                line=line,
                row_id=name if isinstance(name, str) else None,
                noun="LoRA",
                field=field,
                problem=text,
            )
            for field, text in findings
        )
        if entry is not None:
            entries[entry.name] = entry
    return Catalog(place=uri, entries=entries, problems=tuple(problems))


class _NotACatalogError(Exception):
    """The file as a whole cannot be read as a catalog."""


def _yaml_items(uri: str) -> tuple[Sequence[Any], list[int]]:
    try:
        text = read_bytes(uri, max_bytes=MAX_CATALOG_BYTES).decode("utf-8-sig")
        root = load_yaml(text)
    except (LocationError, YamlError) as error:
        line = getattr(error, "line", None)
        raise _NotACatalogError(f"line {line}: {error}" if line else str(error)) from error
    except UnicodeDecodeError as error:
        raise _NotACatalogError(f"is not UTF-8 text (byte {error.start})") from error
    items = cast("Mapping[str, Any]", root).get("loras") if isinstance(root, Mapping) else None
    if not isinstance(items, list):
        raise _NotACatalogError(
            "should hold a list under 'loras:', each item with name, uri and subject"
        )
    return cast("list[Any]", items), numbered_items(text, "loras")


def _parquet_items(uri: str) -> tuple[Sequence[Any], list[int]]:
    try:
        with open_batches(uri) as batches:
            rows = list(islice(parquet_rows(batches), MAX_ENTRIES + 1))
    except LocationError as error:
        raise _NotACatalogError(str(error)) from error
    if len(rows) > MAX_ENTRIES:
        raise _NotACatalogError(f"holds more than {MAX_ENTRIES:,} LoRAs; split it")
    items: list[Any] = []
    for line, row in enumerate(rows, start=1):
        if isinstance(row, str):
            raise _NotACatalogError(f"row {line} {row}")
        # A table with gaps holds NaN where nothing is given.
        items.append({name: value for name, value in row.items() if value == value})
    return items, list(range(1, len(items) + 1))


def _entry(item: object, *, folder: str) -> tuple[LoraEntry | None, list[tuple[str, str]]]:
    if not isinstance(item, Mapping):
        return None, [
            ("(entry)", f"should be a mapping with name, uri and subject, got {shown(item)}")
        ]
    given = {
        str(key): value
        for key, value in cast("Mapping[object, object]", item).items()
        if value is not None
    }
    misspelt = [
        (key, f"is not a known field; {did_you_mean(key, _FIELDS)}")
        for key in given
        if key not in _FIELDS and nearest(key, [f for f in _FIELDS if f not in given])
    ]
    try:
        entry = LoraEntry.model_validate(given)
    except ValidationError as error:
        return None, sentences(error, known=_FIELDS, given=given)
    return entry.model_copy(update={"uri": absolute(entry.uri, beside=folder)}), misspelt
