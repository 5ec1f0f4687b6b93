"""The LoRA catalog: names that rows use, and the files, nouns and licences behind them.

A YAML file with a list under ``loras:`` or a Parquet file with the same columns. Relative files
are relative to the catalog, so that a folder with a catalog and its LoRAs can be moved.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clora_core.recipe.row import LoraKind
from manifests.loras.local_lora import lora_refusal
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.hub_names import hub_file
from manifests.places.locations import LocationError
from manifests.places.place_names import absolute, parent, split_options
from manifests.tables.readers import RawRow, read_file
from manifests.tables.yaml_rows import yaml_rows
from manifests.text.given_names import checked
from manifests.text.problems import Problem, problems_at
from manifests.text.sections import section_of
from manifests.text.text_rules import LoraName, ShortText
from manifests.text.wording import did_you_mean, shown

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
        uri: Absolute path, URI or hub name (``owner/name@revision:file``) of the safetensors file,
            or of a folder that peft has written.
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


_SECTION = section_of(LoraEntry)


@dataclass(frozen=True, kw_only=True)
class LoraCatalog(Mapping[str, LoraEntry]):
    """The LoRAs by name, and what is wrong with the rest.

    Attributes:
        place: The file it was read from.
        entries: The good ones.
        problems: The others', one sentence each.
        refused: Names of the others.
        is_whole: Whether all entries could be read.
    """

    place: str
    entries: Mapping[str, LoraEntry]
    problems: tuple[Problem, ...] = ()
    refused: frozenset[str] = frozenset()
    is_whole: bool = True

    def __getitem__(self, name: str) -> LoraEntry:
        """Return the LoRA called ``name``."""
        return self.entries[name]

    def __iter__(self) -> Any:
        """Return the names in the catalog's order."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Return how many LoRAs there are."""
        return len(self.entries)


def unknown_loras(names: Iterable[str], catalog: Mapping[str, LoraEntry]) -> list[str]:
    """Return a sentence for each name that ``catalog`` does not have, unless it says why itself."""
    return [
        f"no LoRA {name!r} in the catalog; {did_you_mean(name, tuple(catalog))}"
        for name in names
        if name not in catalog and not is_kept_out(name, catalog)
    ]


def is_kept_out(name: str, catalog: Mapping[str, LoraEntry]) -> bool:
    """Return whether a problem of ``catalog`` is the reason that it does not have ``name``."""
    if name in catalog or not isinstance(catalog, LoraCatalog):
        return False
    return name in catalog.refused or not catalog.is_whole


def read_lora_catalog(uri: str, *, allowed: AllowedRoots = EVERYWHERE) -> LoraCatalog:
    """Return the catalog at ``uri`` (absolute path or URI); what is wrong is in its problems.

    Args:
        uri: The catalog.
        allowed: Where it and its LoRA files may be; what is elsewhere is a problem.
    """
    entries: dict[str, LoraEntry] = {}
    refused: set[str] = set()
    problems: list[Problem] = []
    first_lines: dict[str, int] = {}
    for row in _rows(uri, allowed):
        if isinstance(row, Problem):
            problems.append(replace(row, noun="LoRA"))
            continue
        entry, findings = checked(LoraEntry, row.values, _SECTION)
        if entry is not None:
            if hub_file(entry.uri) is None:
                place = absolute(entry.uri, beside=parent(uri))
                entry = entry.model_copy(update={"uri": place})
            refusal = lora_refusal(entry.uri, allowed)
            if refusal is not None:
                entry, findings = None, [*findings, ("uri", refusal)]
        name = row.values.get("name")
        if entry is not None and entry.name in entries:
            first = f"line {first_lines[entry.name]}, {entries[entry.name].uri}"
            text = f"is used twice, got {shown(entry.name)}, first in {first}; names are unique"
            entry, findings = None, [*findings, ("name", text)]
        row_id = name if isinstance(name, str) else None
        problems += problems_at(uri, findings, line=row.line, row_id=row_id, noun="LoRA")
        if entry is not None:
            entries[entry.name] = entry
            first_lines[entry.name] = row.line
        elif row_id is not None:
            refused.add(row_id)
    return LoraCatalog(
        place=uri,
        entries=entries,
        problems=tuple(problems),
        refused=frozenset(refused),
        is_whole=bool(entries or refused) or all(each.line is not None for each in problems),
    )


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
