"""The sweep file: a grid of compositions, prompts, seeds, settings and methods in a few lines.

It says what a job says (output, base model, catalog, settings) and, instead of a manifest, the
lists whose product the manifest is. Read here into one frozen value; ``grid.expand`` writes
it out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from manifests.grid.testbed_spec import PublishedTestbed
from manifests.places.place_names import absolute
from manifests.places.yaml_file import read_mapping, validated
from manifests.rows.sampler_settings import SAMPLER_SECTION
from manifests.rows.schema import Seed, Side
from manifests.text.sections import section_of
from manifests.text.text_rules import AnyText, Prompt, ShortText
from manifests.text.whole_numbers import seed_number

MAX_SWEEP_BYTES = 16 * 1024**2
MAX_SEEDS = 1_000_000

_FROZEN = ConfigDict(frozen=True, extra="forbid")


def _seeds(value: object) -> object:
    """Let ``{first, count}`` stand for consecutive seeds."""
    if not isinstance(value, Mapping):
        return value
    given = cast("Mapping[object, object]", value)
    first, count = given.get("first", 0), given.get("count")
    unknown = sorted(str(name) for name in given if name not in ("first", "count"))
    if unknown:
        raise ValueError(f"should hold first and count and nothing else, there is {unknown[0]!r}")
    if type(count) is not int or not 1 <= count <= MAX_SEEDS:
        raise ValueError(f"should be whole numbers first, and count from 1 to {MAX_SEEDS:,}")
    start = seed_number(first)
    seed_number(start + count - 1)
    return tuple(range(start, start + count))


def _composition(value: object) -> object:
    """Let a bare list of LoRAs stand for a composition."""
    return {"loras": value} if isinstance(value, list | str) else value


class SweepComposition(BaseModel):
    """LoRAs that are put into one image, and what is drawn with them.

    Attributes:
        loras: As in a row: names, or structs ``{lora, weight, subject, trigger, region}``.
        prompts: Templates for these LoRAs; the sweep's own if not given.
        prompt_file: A file with a prompt a line, options and ``<lora:...>`` tags as other tools
            write them (see ``prompt_lines``); relative to the sweep file. Its lines come beside
            ``prompts``, and instead of the sweep's own.
    """

    model_config = _FROZEN

    loras: Any = ()
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)] | None = None
    prompt_file: ShortText | None = None


class SweepSpec(BaseModel):
    """A sweep as its author wrote it.

    Attributes:
        output: Folder of the job; manifest and job file are written into it.
        base_model: As in a job file.
        loras: Catalog, as in a job file.
        methods: Every composition, prompt and seed is made by each of them.
        compositions: LoRA sets, one by one.
        pairs_of: LoRAs of which every two with different subjects are a composition too.
        triples_of: The same with every three.
        testbed: A published list, which brings its own LoRAs and further compositions with prompts
            of their own.
        prompts: Templates (see ``grid.template``) for compositions that have none of their own.
        backgrounds: What ``{background}`` is, in turn; templates without it are made once.
        words: Lists for ``__name__`` in templates.
        seeds: A list, or ``{first, count}``. The same for every method.
        negative_prompt: For all rows.
        width: In pixels; the base model's own size if not given.
        height: As width.
        sampler: Settings for all rows, as in a job file.
        samplers: Changes to them, each one point of the grid.
        scoring: As in a job file.
        resources: As in a job file.
    """

    model_config = _FROZEN

    output: Annotated[str, Field(min_length=1)]
    base_model: str | None = None
    loras: str | None = None
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "clora",
        "merge",
        "composite",
        "switch",
    )
    compositions: tuple[Annotated[SweepComposition, BeforeValidator(_composition)], ...] = ()
    pairs_of: tuple[str, ...] = ()
    triples_of: tuple[str, ...] = ()
    testbed: PublishedTestbed | None = None
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)] = ("{subjects}",)
    backgrounds: tuple[Prompt, ...] = ()
    words: Mapping[str, Annotated[tuple[AnyText, ...], Field(min_length=1)]] = Field(
        default_factory=dict[str, tuple[str, ...]]
    )
    seeds: Annotated[
        tuple[Seed, ...], BeforeValidator(_seeds), Field(min_length=1, max_length=MAX_SEEDS)
    ] = (0,)
    negative_prompt: AnyText = ""
    width: Side | None = None
    height: Side | None = None
    sampler: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    samplers: Annotated[tuple[Mapping[str, Any], ...], Field(min_length=1)] = ({},)
    scoring: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    resources: Mapping[str, Any] = Field(default_factory=dict[str, Any])


_SECTION = section_of(SweepSpec, inner={"sampler": SAMPLER_SECTION, "samplers": SAMPLER_SECTION})


def load_sweep(path: str | Path) -> tuple[SweepSpec, str]:
    """Return the sweep at ``path`` (a local path or a URI), and its absolute place.

    Raises:
        InputError: With every problem of the file.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    given = read_mapping(
        place,
        max_bytes=MAX_SWEEP_BYTES,
        expected="a mapping with output, methods and compositions",
    )
    return validated(SweepSpec, given, place=place, section=_SECTION), place
