"""From a sweep to manifest rows: the product of its lists, the same seeds for every method.

Every problem of every composition is found in one pass; a row is only written if there are none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import comb
from typing import Any

from clora_core.recipe.findings import composition_findings
from manifests.catalog import LoraEntry
from manifests.locations import LocationError
from manifests.prompt_lines import PromptLineError, read_prompt_lines
from manifests.row_loras import LoraRequest, named_lora, requested_loras
from manifests.sweep_rows import Scene, scene_rows
from manifests.sweep_spec import SweepComposition, SweepSpec
from manifests.sweep_text import TemplateError, expand_template
from manifests.wording import did_you_mean, shown

__all__ = ["Expansion", "SweepRules", "expand_sweep"]

MAX_ROWS = 5_000_000
MAX_FINDINGS = 1000
"""Then the rest is not looked at: nobody reads more."""

_Findings = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class SweepRules:
    """What a sweep is checked against.

    Attributes:
        catalog: LoRAs by name.
        methods: The known ones.
        read_text: Returns the text of a prompt file; raises ``LocationError``.
    """

    catalog: Mapping[str, LoraEntry]
    methods: Sequence[str]
    read_text: Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """What a sweep stands for.

    Attributes:
        rows: Manifest rows; empty if there are problems.
        findings: (setting, sentence) of everything that is wrong.
        num_compositions: LoRA sets.
        num_prompts: Different prompts.
    """

    rows: tuple[dict[str, Any], ...]
    findings: tuple[tuple[str, str], ...]
    num_compositions: int
    num_prompts: int


def expand_sweep(spec: SweepSpec, rules: SweepRules) -> Expansion:
    """Return the rows of a sweep, or everything that is wrong with it."""
    findings: _Findings = [
        ("methods", f"{method!r} is no method; {did_you_mean(method, rules.methods)}")
        for method in spec.methods
        if method not in rules.methods
    ]
    grid, more = _with_grids(spec, rules.catalog)
    findings += more
    groups: list[list[Scene]] = []
    room = MAX_ROWS // (len(spec.samplers) * len(spec.seeds) * len(spec.methods))
    for place, composition in grid:
        scenes, more = _scenes(composition, spec, rules, room)
        findings += [(f"{place}.{where}" if where else place, text) for where, text in more]
        groups.append(scenes)
        room -= len(scenes)
        if room < 0 or len(findings) > MAX_FINDINGS:
            break
    if not grid and not findings:
        findings.append(("compositions", "holds no LoRA sets; list some, or name pairs_of"))
    scenes = [scene for group in groups for scene in group]
    if room < 0:
        findings.append(("(all)", f"stands for more than {MAX_ROWS:,} rows; split it"))
    return Expansion(
        rows=() if findings else tuple(scene_rows(groups, spec)),
        findings=tuple(dict.fromkeys(findings)),
        num_compositions=len(grid),
        num_prompts=len({scene.prompt for scene in scenes}),
    )


def _with_grids(
    spec: SweepSpec, catalog: Mapping[str, LoraEntry]
) -> tuple[list[tuple[str, SweepComposition]], _Findings]:
    """Return the compositions with their places, those of ``pairs_of`` and ``triples_of`` too."""
    grid = [(f"compositions[{n}]", each) for n, each in enumerate(spec.compositions)]
    findings: _Findings = []
    for place, names, size in (("pairs_of", spec.pairs_of, 2), ("triples_of", spec.triples_of, 3)):
        unknown = [name for name in names if name not in catalog]
        findings += [
            (place, f"no LoRA {name!r} in the catalog; {did_you_mean(name, tuple(catalog))}")
            for name in unknown[:MAX_FINDINGS]
        ]
        num_sets = comb(len(set(names)), size)
        if num_sets > MAX_ROWS:
            text = f"stands for {num_sets:,} sets, more than {MAX_ROWS:,}; split it"
            findings.append((place, text))
        elif not unknown:
            chosen = [
                some
                for some in combinations(dict.fromkeys(names), size)
                if len({catalog[name].subject for name in some}) == size
            ]
            grid += [(f"{place} {' + '.join(c)}", SweepComposition(loras=c)) for c in chosen]
            if names and not chosen:
                findings.append((place, f"gives no set of {size} with different subjects"))
    return grid, findings


def _scenes(
    composition: SweepComposition, spec: SweepSpec, rules: SweepRules, room: int
) -> tuple[list[Scene], _Findings]:
    """Return the scenes of a composition, as long as there is room for them, and its mistakes."""
    requests, findings = requested_loras(composition.loras)
    findings += _unknown(requests, rules.catalog)
    templates = composition.prompts or (() if composition.prompt_file else spec.prompts)
    scenes: list[Scene] = []
    for number, template in enumerate(templates):
        where = f"prompts[{number}]"
        for background in spec.backgrounds if "{background}" in template else (None,):
            if len(scenes) > room or len(findings) > MAX_FINDINGS:
                return scenes, findings
            found, problem = _of_template(template, background, requests, spec, rules.catalog)
            scenes += found
            findings += [(where, problem)] if problem else []
        if "{background}" in template and not spec.backgrounds:
            findings.append((where, "{background} is used and backgrounds is empty; list some"))
    if composition.prompt_file is not None:
        found, more = _of_file(composition.prompt_file, requests, spec, rules, room)
        scenes += found
        findings += more
    if not findings:
        findings += _misfits(scenes, spec, rules)
    return scenes, findings


def _of_template(
    template: str,
    background: str | None,
    requests: tuple[LoraRequest, ...],
    spec: SweepSpec,
    catalog: Mapping[str, LoraEntry],
) -> tuple[list[Scene], str | None]:
    try:
        prompts = expand_template(
            template,
            subjects=_subjects(requests, catalog),
            background=background,
            words=spec.words,
        )
    except TemplateError as error:
        return [], str(error)
    return [
        Scene(loras=requests, prompt=prompt, template=template, background=background)
        for prompt in prompts
    ], None


def _of_file(
    name: str, requests: tuple[LoraRequest, ...], spec: SweepSpec, rules: SweepRules, room: int
) -> tuple[list[Scene], _Findings]:
    try:
        text = rules.read_text(name)
    except LocationError as error:
        return [], [("prompt_file", str(error))]
    scenes: list[Scene] = []
    findings: _Findings = []
    for number, line in read_prompt_lines(text):
        if len(scenes) > room or len(findings) > MAX_FINDINGS:
            break
        where = f"prompt_file line {number}"
        if isinstance(line, PromptLineError):
            findings.append((where, str(line)))
            continue
        tags = [{"lora": lora, "weight": weight} for lora, weight in line.loras]
        tagged, problems = requested_loras(tags)
        taken = {request.lora for request in tagged}
        loras = (*(request for request in requests if request.lora not in taken), *tagged)
        problems += _unknown(tagged, rules.catalog)
        findings += [(where, problem) for _, problem in problems]
        try:
            prompts = expand_template(
                line.prompt, subjects=_subjects(loras, rules.catalog), words=spec.words
            )
        except TemplateError as error:
            findings.append((where, str(error)))
            continue
        scenes += [
            Scene(loras=loras, prompt=prompt, template=line.prompt, line=line) for prompt in prompts
        ]
    return scenes, findings


def _unknown(requests: Sequence[LoraRequest], catalog: Mapping[str, LoraEntry]) -> _Findings:
    return [
        ("loras", f"no LoRA {request.lora!r} in the catalog; "
         f"{did_you_mean(request.lora, tuple(catalog))}")
        for request in requests
        if request.lora not in catalog
    ]  # fmt: skip


def _subjects(requests: Sequence[LoraRequest], catalog: Mapping[str, LoraEntry]) -> list[str]:
    concepts = [r for r in requests if r.lora in catalog and catalog[r.lora].kind == "concept"]
    return [str(request.subject or catalog[request.lora].subject or "") for request in concepts]


def _misfits(scenes: Sequence[Scene], spec: SweepSpec, rules: SweepRules) -> _Findings:
    """Return why methods, prompts and LoRAs of the scenes do not go together."""
    findings: _Findings = []
    for scene, method in product(scenes, spec.methods):
        loras = [named_lora(request, rules.catalog[request.lora]) for request in scene.loras]
        if method in rules.methods:
            findings += [
                ("", f"prompt {shown(scene.prompt)}, {column}: {text}")
                for column, text in composition_findings(method, scene.prompt, loras)
            ]
    return findings
