"""What a published list gives a sweep: LoRAs for its catalog, and compositions with their prompts.

``composlora`` and ``customconcept101`` read the two forms; here is what they share. Every entry is
converted whole or named with what is wrong, and a sweep with such an entry is not written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from manifests.grid.expand import MAX_FINDINGS
from manifests.grid.spec import SweepComposition
from manifests.grid.template import holds_lists
from manifests.grid.testbed_spec import PublishedTestbed
from manifests.loras.catalog import LoraEntry
from manifests.places.locations import LocationError
from manifests.places.place_names import absolute, escaped, is_uri, joined, parent
from manifests.text.given_names import checked
from manifests.text.json_text import load_json
from manifests.text.problems import Problem, problems_at
from manifests.text.sections import section_of
from manifests.text.text_rules import Prompt
from manifests.text.wording import WHOLE, did_you_mean, sentences, shown

Model = TypeVar("Model", bound=BaseModel)

_PROMPT = TypeAdapter(Prompt)


@dataclass(frozen=True, kw_only=True)
class ReadTestbed:
    """A list as a sweep takes it.

    Attributes:
        place: The list's file, an absolute path or a URI.
        items: Its LoRAs as items of a catalog file.
        compositions: What is made of them, each with its place for messages.
        problems: Of the list, of its prompt files and of the block that names them.
        left_out: Prompts that rows cannot say, where the block asks to leave them out.
    """

    place: str
    items: Sequence[Mapping[str, Any]] = ()
    compositions: Sequence[tuple[str, SweepComposition]] = ()
    problems: Sequence[Problem] = ()
    left_out: Sequence[Problem] = ()

    @property
    def entries(self) -> dict[str, LoraEntry]:
        """The LoRAs by name."""
        return {item["name"]: LoraEntry.model_validate(item) for item in self.items}


@dataclass(kw_only=True)
class Reading:
    """A list while it is read.

    Attributes:
        bed: The block of the sweep.
        sweep: The sweep file; relative places start beside it.
        read_text: Returns the text at an absolute path or URI; raises ``LocationError``.
        problems: What was found so far.
        left_out: Prompts that are left out so far.
    """

    bed: PublishedTestbed
    sweep: str
    read_text: Callable[[str], str]
    problems: list[Problem] = field(default_factory=list[Problem])
    left_out: list[Problem] = field(default_factory=list[Problem])

    @property
    def place(self) -> str:
        """The list's file, an absolute path or a URI."""
        return absolute(self.bed.file, beside=parent(self.sweep))

    def say(self, setting: str, text: str, *, at: str = "") -> None:
        """Keep what is wrong at ``setting`` of the file ``at``; of the list if it names none."""
        if len(self.problems) < MAX_FINDINGS:
            self.problems += problems_at(at or self.place, [(setting, text)])

    def unfit(self, setting: str, text: str, *, at: str = "") -> None:
        """Keep why a prompt of the list is none that a row can have."""
        if self.bed.skip_unfit:
            self.left_out += problems_at(at or self.place, [(setting, text)])
        else:
            self.say(setting, f"{text}, or leave such prompts out with skip_unfit: true", at=at)

    def say_of_block(self, setting: str, text: str) -> None:
        """Keep what is wrong with a setting of the block."""
        self.say(f"testbed.{setting}", text, at=self.sweep)

    def text(self, place: str) -> str | None:
        """Return the text of a file; None, and a problem kept, if it cannot be read."""
        try:
            return self.read_text(place)
        except LocationError as error:
            self.say("(file)", str(error), at=place)
            return None

    def json(self) -> object:
        """Return what the list's file holds; None, and a problem kept, if it holds no JSON."""
        text = self.text(self.place)
        try:
            return None if text is None else load_json(text)
        except (ValueError, RecursionError) as error:
            self.say("(file)", f"is not valid JSON ({error}); take the file as it is published")
            return None

    def valid(self, model: type[Model], given: object, where: str) -> Model | None:
        """Return ``given`` as a ``model``; None, and its problems kept, if it is none."""
        if not isinstance(given, Mapping):
            fields = ", ".join(model.model_fields)
            self.say(where, f"should be a mapping with {fields}, got {shown(given)}")
            return None
        values = {str(name): each for name, each in cast("Mapping[object, Any]", given).items()}
        found, findings = checked(model, values, section_of(model))
        for name, text in findings:
            self.say(where if name == WHOLE else f"{where}.{name}", text)
        return None if findings else found

    def unknown(self, setting: str, named: Sequence[str], known: Sequence[str]) -> None:
        """Keep a problem for each name of the block that the list does not have."""
        for name in named:
            if name not in known:
                text = f"there is no {name!r} in {self.bed.file}; {did_you_mean(name, known)}"
                self.say_of_block(setting, text)

    def lora_file(self, name: str) -> str:
        """Return where the file of a LoRA is."""
        folder = absolute(self.bed.loras, beside=parent(self.sweep))
        return joined(folder, f"{escaped(name) if is_uri(folder) else name}.safetensors")

    def struct(self, name: str, **more: Any) -> dict[str, Any]:
        """Return a LoRA as compositions name it."""
        weight = {} if self.bed.weight is None else {"weight": self.bed.weight}
        return {"lora": name, **weight, **more}


def prompt_problem(text: str) -> str | None:
    """Return why ``text`` cannot be a prompt as it stands, or None."""
    try:
        _PROMPT.validate_python(text)
    except ValidationError as error:
        return "; ".join(sentence for _, sentence in sentences(error))
    if holds_lists(text):
        return (
            "holds a brace, or a name between double underscores, which a sweep would write out; "
            f"take it out, got {shown(text)}"
        )
    return None
