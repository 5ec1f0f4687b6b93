"""The LoRA catalog: names that rows use, and the files, nouns and licences behind them.

A YAML file with a list under ``loras:`` or a Parquet file with the same columns. Relative files
are relative to the catalog, so that a folder with a catalog and its LoRAs can be moved.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from clora_core.recipe.row import LoraKind
from manifests.loras.local_lora import lora_refusal
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError
from manifests.places.place_names import absolute, parent, split_options
from manifests.tables.readers import RawRow, read_file
from manifests.tables.yaml_rows import yaml_rows
from manifests.text.problems import Problem, problems_at
from manifests.text.text_rules import LoraName, ShortText
from manifests.text.wording import did_you_mean, nearest, sentences, shown

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
        uri: Absolute path or URI of the safetensors file, or of a folder that peft has written.
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
class LoraCatalog(Mapping[str, LoraEntry]):
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


def unknown_lora(name: str, catalog: Mapping[str, LoraEntry]) -> str:
    """Return what is said of a LoRA that the catalog does not have."""
    return f"no LoRA {name!r} in the catalog; {did_you_mean(name, tuple(catalog))}"


def read_lora_catalog(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> LoraCatalog:
    """Return the catalog at ``uri`` (absolute path or URI); what is wrong is in its problems.

    Args:
        uri: The catalog.
        allowed: Where it and its LoRA files may be; what is elsewhere is a problem.
    """
    entries: dict[str, LoraEntry] = {}
    problems: list[Problem] = []
    for row in _rows(uri, allowed):
        if isinstance(row, Problem):
            problems.append(replace(row, noun="LoRA"))
            continue
        entry, findings = _entry(row.values, folder=parent(uri))
        refusal = None if entry is None else lora_refusal(entry.uri, allowed)
        if entry is not None and refusal is not None:
            entry, findings = None, [("uri", refusal)]
        name = row.values.get("name")
        if entry is not None and entry.name in entries:
            text = f"is used twice, got {shown(name)}; names are unique"
            entry, findings = None, [("name", text)]
        row_id = name if isinstance(name, str) else None
        found = problems_at(uri, findings, line=row.line, row_id=row_id, noun="LoRA")
        problems += found
        if entry is not None:
            entries[entry.name] = entry
    return LoraCatalog(place=uri, entries=entries, problems=tuple(problems))


def _rows(uri: str, allowed: AllowedRoots) -> Iterator[RawRow | Problem]:
    """Yield the entries as they are written; the last thing may be why there are no more."""
    try:
        allowed.check(uri)
        if not split_options(uri)[0].lower().endswith((".parquet", ".pq")):
            item = "a mapping with name, uri and subject"
            yield from yaml_rows(uri, field="loras", item=item, max_bytes=MAX_CATALOG_BYTES)
            return
        rows = read_file(uri)
        yield from islice(rows, MAX_ENTRIES)
        if next(rows, None) is not None:
            text = f"holds more than {MAX_ENTRIES:,} LoRAs; split it"
            yield Problem(place=uri, field="(file)", problem=text)
    except LocationError as error:
        yield Problem(place=uri, field="(file)", problem=str(error))


def _entry(
    given: Mapping[str, Any], *, folder: str
) -> tuple[LoraEntry | None, list[tuple[str, str]]]:
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
