"""CustomConcept101, the lists of Custom Diffusion (arXiv 2212.04488), from its JSON.

``dataset.json`` is a list of concepts. ``dataset_multiconcept.json`` is a list of sets: some
concepts and, last, the prompt file of the set. A concept is called by the folder of its images, so
``./benchmark_dataset/pet_cat1`` is the LoRA ``pet_cat1``, and its noun is ``class_prompt``. Prompt
files have a template a line, with ``{}`` for the noun of one concept and ``{0}``, ``{1}`` for those
of a set.

``instance_prompt`` and ``class_data_dir`` say how concepts are trained and are not used: the token
in the prompt (``<new1>``) is one of Custom Diffusion's own weights, which LoRA files do not have.
What a LoRA is called by is said in the sweep (``trigger``, ``triggers``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from manifests.grid.noun_order import fitting_order, reindexed
from manifests.grid.spec import SweepComposition
from manifests.grid.template import places
from manifests.grid.testbed import Reading, ReadTestbed, prompt_problem
from manifests.loras.catalog import LoraEntry
from manifests.places.place_names import absolute, parent
from manifests.text.text_rules import ShortText
from manifests.text.wording import shown


class _Concept(BaseModel):
    """One concept of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance_prompt: ShortText
    class_prompt: ShortText
    instance_data_dir: ShortText
    class_data_dir: ShortText | None = None
    prompt_filename: ShortText

    @property
    def name(self) -> str:
        """What its LoRA is called: the last part of the folder of its images."""
        return self.instance_data_dir.rstrip("/").rpartition("/")[2]


class _Prompts(BaseModel):
    """The end of a set: its prompt file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_filename_compose: ShortText


def read_customconcept101(reading: Reading) -> ReadTestbed:
    """Return the LoRAs and compositions of the file, or everything that is wrong with it."""
    sets = list(_sets(reading, reading.json()))
    folders: dict[str, str] = {}
    items: dict[str, dict[str, Any]] = {}
    for where, concepts, _ in sets:
        for concept in concepts:
            folder = folders.setdefault(concept.name, concept.instance_data_dir)
            if folder != concept.instance_data_dir:
                text = f"ends as {shown(folder)} does, so both LoRAs would be {concept.name!r}"
                reading.say(f"{where}.instance_data_dir", f"{text}; rename one")
            item = _item(reading, concept)
            if concept.name not in items and reading.valid(LoraEntry, item, where) is not None:
                items[concept.name] = item
    if sets:
        for setting in ("subjects", "triggers"):
            reading.unknown(setting, tuple(getattr(reading.bed, setting)), tuple(items))
    templates: dict[tuple[str, int], Sequence[str]] = {}
    compositions: list[tuple[str, SweepComposition]] = []
    for where, concepts, name in sets:
        kind = (name, len(concepts))
        if kind not in templates:
            templates[kind] = tuple(_templates(reading, *kind))
        if all(concept.name in items for concept in concepts):
            nouns = {concept.name: items[concept.name]["subject"] for concept in concepts}
            compositions += _compositions(reading, where, concepts, templates[kind], nouns)
    return ReadTestbed(
        place=reading.place,
        items=tuple(items.values()),
        compositions=compositions,
        problems=tuple(reading.problems),
        left_out=tuple(reading.left_out),
    )


def _sets(reading: Reading, given: object) -> Iterator[tuple[str, Sequence[_Concept], str]]:
    """Yield place, concepts and prompt file of every entry that holds."""
    if given is None:
        return
    if not isinstance(given, list) or not given:
        text = f"should be a list of concepts, or of sets of them, got {shown(given)}"
        reading.say("(file)", text)
        return
    for number, entry in enumerate(cast("list[object]", given)):
        where = f"[{number}]"
        if not isinstance(entry, list):
            concept = reading.valid(_Concept, entry, where)
            if concept is not None:
                yield where, (concept,), concept.prompt_filename
            continue
        *members, last = cast("list[object]", entry) or [None]
        concepts = [
            reading.valid(_Concept, each, f"{where}[{n}]") for n, each in enumerate(members)
        ]
        prompts = reading.valid(_Prompts, last, f"{where}[{len(members)}]")
        if not members:
            text = "should be a set: concepts, and last its prompt file, got"
            reading.say(where, f"{text} {shown(entry)}")
        elif prompts is not None and None not in concepts:
            found = tuple(concept for concept in concepts if concept is not None)
            yield where, found, prompts.prompt_filename_compose


def _item(reading: Reading, concept: _Concept) -> dict[str, Any]:
    bed, name = reading.bed, concept.name
    item = {
        "name": name,
        "uri": reading.lora_file(name),
        "subject": bed.subjects.get(name, concept.class_prompt),
    }
    trigger = bed.triggers.get(name, bed.trigger)
    return item if trigger is None else {**item, "trigger": trigger}


def _compositions(
    reading: Reading,
    where: str,
    concepts: Sequence[_Concept],
    templates: Sequence[str],
    nouns: Mapping[str, str],
) -> Iterator[tuple[str, SweepComposition]]:
    """Yield what is made of a set: one composition, or two where two concepts share a noun.

    Of two cats in a prompt the first is the row's first, so a template that names the second one
    first has the LoRAs in its own order.
    """
    own = [reading.bed.subjects.get(each.name, each.class_prompt) for each in concepts]
    by_order: dict[tuple[int, ...], list[str]] = {}
    for template in templates:
        order = fitting_order(template, own)
        if order is None:
            text = (
                f"{', '.join(own)}: a noun stands elsewhere in {shown(template)} before its place"
            )
            reading.unfit(where, f"{text}; name another noun in testbed.subjects")
        else:
            by_order.setdefault(order, []).append(reindexed(template, order))
    for order, some in by_order.items():
        loras = [
            # The published list calls a LoRA by two nouns; each row says it as its set does.
            reading.struct(
                concepts[index].name,
                **({} if own[index] == nouns[concepts[index].name] else {"subject": own[index]}),
            )
            for index in order
        ]
        place = f"testbed {' + '.join(concepts[index].name for index in order)}"
        yield place, SweepComposition(loras=loras, prompts=tuple(some))


def _templates(reading: Reading, name: str, num_concepts: int) -> Iterator[str]:
    """Yield the templates of a prompt file; every concept of the set has a place in each."""
    place = absolute(name, beside=parent(reading.place))
    text = reading.text(place)
    if text is None:
        return
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not numbered:
        reading.say("(file)", "holds no prompt; add one a line", at=place)
    for number, line in numbered:
        template = " ".join(line.split())
        if num_concepts == 1:
            template = template.replace("{}", "{0}")
        expected = [str(concept) for concept in range(num_concepts)]
        missing = [f"{{{each}}}" for each in expected if each not in places(template)]
        if missing:
            text = (
                f"{shown(line)} has no {' and no '.join(missing)}, so a LoRA has no noun in the "
                "prompt; write it in"
            )
            reading.unfit(f"line {number}", text, at=place)
            continue
        problem = prompt_problem(_without(template, expected))
        if problem is None:
            yield template
        else:
            reading.say(f"line {number}", problem, at=place)


def _without(template: str, names: Sequence[str]) -> str:
    """Return the template with a word in the places ``names``, to look at the rest."""
    for name in names:
        template = template.replace(f"{{{name}}}", "it")
    return template
