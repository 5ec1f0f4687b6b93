"""ComposLoRA, the testbed of LoRA Switch and LoRA Composite (arXiv 2402.16843), from its JSON.

The file has groups (character, clothing, style, ...) of LoRAs with ``id``, ``name``, ``trigger`` (a
list of words) and ``url``. A composition has one LoRA of each of some groups, the character always
and first; its prompt is a prefix and all their trigger words. So it is here: of every number of
groups in ``sizes``, all choices in the order of the file.

All words of an entry are its trigger and the first is its subject, in place. So a method whose one
prompt shows every trigger gets the published text, and one with a variant for each concept has each
concept's further words in its own variant alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise, product
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import mark_prompt
from manifests.grid.rows import MAX_ROWS
from manifests.grid.spec import SweepComposition
from manifests.grid.testbed import Reading, ReadTestbed, prompt_problem
from manifests.loras.catalog import LoraEntry
from manifests.rows.loras import LoraRequest, named_lora
from manifests.text.text_rules import LoraName, ShortText
from manifests.text.wording import did_you_mean, listed, shown

FIRST_GROUP = "character"


class _Entry(BaseModel):
    """One LoRA of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: LoraName
    name: ShortText | None = None
    trigger: Annotated[list[ShortText], Field(min_length=1)]
    url: ShortText | None = None

    @property
    def words(self) -> list[str]:
        """Its trigger words, each with single spaces."""
        return [" ".join(text.split()) for text in self.trigger]


_Groups = Mapping[str, Sequence[_Entry]]


def read_composlora(reading: Reading) -> ReadTestbed:
    """Return the LoRAs and compositions of the file, or everything that is wrong with it."""
    groups = _groups(reading, reading.json())
    items: list[dict[str, Any]] = []
    for group, entries in groups.items():
        for entry in entries:
            item = _item(reading, entry, is_style=group in reading.bed.styles)
            if reading.valid(LoraEntry, item, f"{group}, {entry.id}") is not None:
                items.append(item)
    _check_block(reading, groups)
    compositions: list[tuple[str, SweepComposition]] = []
    if not reading.problems:
        catalog = {item["name"]: LoraEntry.model_validate(item) for item in items}
        for chosen in _chosen(groups, reading.bed.sizes):
            compositions += _composition(reading, chosen, catalog)
    return ReadTestbed(
        place=reading.place,
        items=items,
        compositions=compositions,
        problems=tuple(reading.problems),
        left_out=tuple(reading.left_out),
    )


def _groups(reading: Reading, given: object) -> _Groups:
    """Return the groups of the file as far as they hold."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        text = f"should be a mapping of groups, each a list of LoRAs, got {shown(given)}"
        reading.say("(file)", text)
        return {}
    groups: dict[str, list[_Entry]] = {}
    places: dict[str, str] = {}
    for group, members in cast("Mapping[str, object]", given).items():
        if not isinstance(members, list) or not members:
            text = f"should be a list of LoRAs, got {shown(members)}; add some, or take it out"
            reading.say(group, text)
            continue
        groups[group] = []
        for number, member in enumerate(cast("list[object]", members)):
            where = f"{group}[{number}]"
            entry = _entry(reading, where, member)
            if entry is None:
                continue
            if entry.id in places:
                text = f"is used twice, first in {places[entry.id]}, got {shown(entry.id)}"
                reading.say(f"{where}.id", f"{text}; ids are unique")
            places.setdefault(entry.id, where)
            groups[group].append(entry)
    if FIRST_GROUP not in groups:
        hint = did_you_mean(FIRST_GROUP, tuple(groups))
        text = f"has no group {FIRST_GROUP!r}, of which every composition has a LoRA; {hint}"
        reading.say("(file)", text)
    return groups


def _entry(reading: Reading, where: str, given: object) -> _Entry | None:
    entry = reading.valid(_Entry, given, where)
    if entry is None:
        return None
    for number, text in enumerate(entry.trigger):
        problem = prompt_problem(text)
        if problem is not None:
            reading.say(f"{where}.trigger[{number}]", problem)
    return entry


def _subject(reading: Reading, entry: _Entry) -> str:
    """Return the noun of an entry: the block's, else its first trigger."""
    named = reading.bed.subjects.get(entry.id)
    if named is None:
        return entry.words[0]
    alone = rf"(?<!\w){re.escape(' '.join(named.split()))}(?!\w)"
    if re.search(alone, ", ".join(entry.words), re.IGNORECASE) is None:
        text = f"is none of the words of {entry.id!r}, got {shown(named)}; take one of"
        reading.say_of_block(f"subjects.{entry.id}", f"{text} {listed(entry.words, 8)}")
    return named


def _item(reading: Reading, entry: _Entry, *, is_style: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"name": entry.id, "uri": reading.lora_file(entry.id)}
    if is_style:
        item["kind"] = "style"
    else:
        item |= {"subject": _subject(reading, entry), "trigger": ", ".join(entry.words)}
    if entry.url is not None:
        item["source_url"] = entry.url
    if entry.name is not None:
        item["title"] = entry.name
    return item


def _check_block(reading: Reading, groups: _Groups) -> None:
    bed = reading.bed
    prefix = prompt_problem(bed.prefix) if bed.prefix else None
    if prefix is not None:
        reading.say_of_block("prefix", prefix)
    if not groups:
        return
    reading.unknown("styles", bed.styles, tuple(groups))
    ids = {entry.id: group for group, entries in groups.items() for entry in entries}
    reading.unknown("subjects", tuple(bed.subjects), tuple(ids))
    for name in bed.subjects:
        if ids.get(name) in bed.styles:
            text = f"{name!r} is a style, which has no subject; take it out of subjects or styles"
            reading.say_of_block(f"subjects.{name}", text)
    too_large = [size for size in bed.sizes if size > len(groups)]
    if too_large:
        text = f"has {listed([str(size) for size in too_large], 8)}, and there are {len(groups)}"
        reading.say_of_block("sizes", f"{text} groups of one LoRA each; lower it")
    elif FIRST_GROUP in groups and (count := _count(groups, bed.sizes)) > MAX_ROWS:
        text = f"stands for {count:,} compositions, more than {MAX_ROWS:,}; name fewer sizes"
        reading.say_of_block("sizes", text)


def _count(groups: _Groups, sizes: Sequence[int]) -> int:
    """Return how many compositions there are, without making one."""
    ways = [len(groups[FIRST_GROUP]), *([0] * len(groups))]  # by the number of further groups
    for group, entries in groups.items():
        if group != FIRST_GROUP:
            ways = [ways[0], *(more + len(entries) * less for less, more in pairwise(ways))]
    return sum(ways[size - 1] for size in sizes)


def _chosen(groups: _Groups, sizes: Sequence[int]) -> Iterator[tuple[_Entry, ...]]:
    others = [group for group in groups if group != FIRST_GROUP]
    for size in sizes:
        for some in combinations(others, size - 1):
            yield from product(*(groups[group] for group in (FIRST_GROUP, *some)))


def _composition(
    reading: Reading, chosen: Sequence[_Entry], catalog: Mapping[str, LoraEntry]
) -> Iterator[tuple[str, SweepComposition]]:
    """Yield a composition with its prompt, which must stay as published with every trigger."""
    place = f"testbed {' + '.join(entry.id for entry in chosen)}"
    words = [text for entry in chosen for text in entry.words]
    prefix = " ".join((reading.bed.prefix or "").split())
    prompt = ", ".join(([prefix] if prefix else []) + words)
    problem = prompt_problem(prompt)
    if problem is None:
        problem = _moved(prompt, [catalog[entry.id] for entry in chosen])
    if problem is not None:
        reading.unfit(place, problem, at=reading.sweep)
        return
    loras = [reading.struct(entry.id) for entry in chosen]
    yield place, SweepComposition(loras=loras, prompts=(prompt,))


def _moved(prompt: str, entries: Sequence[LoraEntry]) -> str | None:
    """Return why triggers would not stand where the published prompt has them, or None."""
    concepts = [
        named_lora(LoraRequest(lora=entry.name), entry)
        for entry in entries
        if entry.kind == "concept"
    ]
    try:
        text = mark_prompt(prompt, concepts, active=range(len(concepts))).text
    except PromptError:
        return None  # told for the composition as for every other
    if text == prompt:
        return None
    return (
        f"with its triggers the prompt would be {shown(text)} and not {shown(prompt)}, because a "
        "subject stands in it before its own entry; name another word in testbed.subjects"
    )
