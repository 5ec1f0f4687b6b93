"""From a sweep to manifest rows: the product of its lists, the same seeds for every method.

Every problem of every composition is found in one pass; a row is only written if there are none.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import comb
from typing import Any, get_args

from clora_core.recipe.canonical import canonical_json
from clora_core.recipe.config import PromptSyntax
from clora_core.recipe.findings import composition_findings
from clora_core.recipe.methods import METHODS
from manifests.grid.prompt_lines import PromptLine, PromptLineError, read_prompt_lines
from manifests.grid.rows import MAX_ROWS, Motif, grid_rows, lora_structs
from manifests.grid.spec import SweepComposition, SweepSpec
from manifests.grid.template import TemplateError, expand_template
from manifests.loras.catalog import LoraCatalog, LoraEntry, is_kept_out, unknown_loras
from manifests.places.locations import LocationError
from manifests.rows.loras import LoraRequest, named_lora, requested_loras
from manifests.text.wording import did_you_mean, shown

MAX_ID_CHARACTERS = 120
MAX_FINDINGS = 1000
"""Then the rest is not looked at: nobody reads more."""

_Findings = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class SweepRules:
    """What a sweep is checked against.

    Attributes:
        catalog: LoRAs by name.
        read_text: Returns the text of a prompt file; raises ``LocationError``.
        listed: Compositions of a published list, each with its place.
    """

    catalog: Mapping[str, LoraEntry]
    read_text: Callable[[str], str]
    listed: Sequence[tuple[str, SweepComposition]] = ()


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """What a sweep stands for.

    Attributes:
        spec: The sweep.
        motifs: Compositions with their prompts: what all methods make.
        num_compositions: LoRA sets.
        findings: (setting, sentence) of everything that is wrong.
    """

    spec: SweepSpec
    motifs: Sequence[Motif]
    num_compositions: int
    findings: tuple[tuple[str, str], ...]

    @property
    def num_rows(self) -> int:
        """Rows of the sweep."""
        num_seeds = sum(len(motif.seeds) for motif in self.motifs)
        return num_seeds * len(self.spec.samplers) * len(self.spec.methods)

    @property
    def num_prompts(self) -> int:
        """Different prompts."""
        return len({motif.prompt for motif in self.motifs})

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the manifest's rows; none if anything is wrong."""
        return grid_rows(
            () if self.findings else self.motifs,
            row_id="{name}{variant}-{method}-{seed}",
            samplers=self.spec.samplers,
            methods=self.spec.methods,
            write_loras=_loras_text,
        )


def expand_sweep(spec: SweepSpec, rules: SweepRules) -> Expansion:
    """Return the rows of a sweep, or everything that is wrong with it."""
    findings: _Findings = [
        ("methods", f"{method!r} is no method; {did_you_mean(method, tuple(METHODS))}")
        for method in spec.methods
        if method not in METHODS
    ]
    has_problems = isinstance(rules.catalog, LoraCatalog) and bool(rules.catalog.problems)
    grid, more = _with_grids(spec, rules.catalog)
    findings += more
    grid += rules.listed
    motifs: list[Motif] = []
    room = MAX_ROWS // (len(spec.samplers) * len(spec.seeds) * len(spec.methods))
    for number, (place, composition) in enumerate(grid):
        scenes, more = _scenes(composition, spec, rules, room)
        findings += [(f"{place}.{where}" if where else place, text) for where, text in more]
        for prompt_number, scene in enumerate(scenes):
            name = f"{number:03d}-{'+'.join(r.lora for r in scene.loras)}"[:MAX_ID_CHARACTERS]
            motifs.append(replace(scene, name=f"{name}-p{prompt_number:02d}"))
        room -= len(scenes)
        if room < 0 or len(findings) > MAX_FINDINGS:
            break
    if not grid and not findings and spec.testbed is None and not has_problems:
        findings.append(("compositions", "holds no LoRA sets; list some, or name pairs_of"))
    if grid and not motifs and not findings and not has_problems:
        text = "give no prompt: a prompt_file holds none beside blank lines and comments; add one"
        findings.append(("compositions", text))
    if room < 0:
        findings.append(("(all)", f"stands for more than {MAX_ROWS:,} rows; split it"))
    once = tuple(dict.fromkeys(findings))
    return Expansion(spec=spec, motifs=motifs, num_compositions=len(grid), findings=once)


def _with_grids(
    spec: SweepSpec, catalog: Mapping[str, LoraEntry]
) -> tuple[list[tuple[str, SweepComposition]], _Findings]:
    """Return the compositions with their places, those of ``pairs_of`` and ``triples_of`` too."""
    grid = [(f"compositions[{n}]", each) for n, each in enumerate(spec.compositions)]
    findings: _Findings = []
    for place, names, size in (("pairs_of", spec.pairs_of, 2), ("triples_of", spec.triples_of, 3)):
        unknown = [name for name in names if name not in catalog]
        findings += [(place, text) for text in unknown_loras(unknown[:MAX_FINDINGS], catalog)]
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
) -> tuple[list[Motif], _Findings]:
    """Return the scenes of a composition, as long as there is room for them, and its mistakes."""
    requests, findings = requested_loras(composition.loras)
    findings += _unknown(requests, rules.catalog)
    scenes: list[Motif] = []
    for where, line, background in _lines(composition, spec, rules):
        if len(scenes) > room or len(findings) > MAX_FINDINGS:
            return scenes, findings
        if isinstance(line, str):
            findings.append((where, line))
            continue
        tags = [{"lora": lora, "weight": weight} for lora, weight in line.loras]
        tagged, problems = requested_loras(tags)
        taken = {request.lora for request in tagged}
        loras = (*(request for request in requests if request.lora not in taken), *tagged)
        problems += _unknown(tagged, rules.catalog)
        findings += [(where, problem) for _, problem in problems]
        if _are_kept_out(loras, rules.catalog):
            continue
        subjects = _subjects(loras, rules.catalog)
        try:
            prompts = expand_template(
                line.prompt, subjects=subjects, background=background, words=spec.words
            )
        except TemplateError as error:
            findings.append((where, str(error)))
            continue
        columns = {
            "negative_prompt": line.negative_prompt or spec.negative_prompt,
            "width": line.width or spec.width,
            "height": line.height or spec.height,
            "template": line.prompt,
            "background": background,
        }
        seeds = spec.seeds if line.seed is None else (line.seed,)
        scenes += [
            Motif(prompt=prompt, loras=loras, columns=columns, seeds=seeds, sampler=line.sampler)
            for prompt in prompts
        ]
    if not findings:
        findings += _misfits(scenes, spec, rules)
    return scenes, findings


def _lines(
    composition: SweepComposition, spec: SweepSpec, rules: SweepRules
) -> Iterator[tuple[str, PromptLine | str, str | None]]:
    """Yield place, line and background of every template; or why there is none."""
    templates = composition.prompts or (() if composition.prompt_file else spec.prompts)
    for number, template in enumerate(templates):
        where, has_background = f"prompts[{number}]", "{background}" in template
        for background in spec.backgrounds if has_background else (None,):
            yield where, PromptLine(prompt=template), background
        if has_background and not spec.backgrounds:
            text = "{background} is used and backgrounds is empty; list some"
            yield where, text, None
    if composition.prompt_file is not None:
        try:
            text = rules.read_text(composition.prompt_file)
        except LocationError as error:
            yield "prompt_file", str(error), None
            return
        for number, line in read_prompt_lines(text):
            problem = isinstance(line, PromptLineError)
            yield f"prompt_file line {number}", str(line) if problem else line, None


def _unknown(requests: Sequence[LoraRequest], catalog: Mapping[str, LoraEntry]) -> _Findings:
    names = [request.lora for request in requests]
    return [("loras", text) for text in unknown_loras(names, catalog)]


def _are_kept_out(requests: Sequence[LoraRequest], catalog: Mapping[str, LoraEntry]) -> bool:
    return any(is_kept_out(request.lora, catalog) for request in requests)


def _subjects(requests: Sequence[LoraRequest], catalog: Mapping[str, LoraEntry]) -> list[str]:
    concepts = [r for r in requests if r.lora in catalog and catalog[r.lora].kind == "concept"]
    return [str(request.subject or catalog[request.lora].subject or "") for request in concepts]


def _misfits(scenes: Sequence[Motif], spec: SweepSpec, rules: SweepRules) -> _Findings:
    """Return why methods, prompts and LoRAs of the scenes do not go together."""
    findings: _Findings = []
    for scene, method, syntax in product(scenes, spec.methods, _syntaxes(spec)):
        loras = [named_lora(request, rules.catalog[request.lora]) for request in scene.loras]
        if method in METHODS:
            found = composition_findings(
                method,
                scene.prompt,
                loras,
                negative_prompt=scene.columns["negative_prompt"],
                syntax=syntax,
            )
            findings += [
                ("", f"prompt {shown(scene.prompt)}, {column}: {text}") for column, text in found
            ]
    return findings


def _syntaxes(spec: SweepSpec) -> list[PromptSyntax]:
    """Return how prompts are read at the points of the grid; wrong names are found elsewhere."""
    points = [{**spec.sampler, **point}.get("prompt_syntax", "plain") for point in spec.samplers]
    return [syntax for syntax in get_args(PromptSyntax) if syntax in points]


def _loras_text(requests: Sequence[LoraRequest]) -> str:
    """Return the LoRAs as a row's text: ``cat;dog:0.8``, or JSON where that cannot say it."""
    structs = lora_structs(requests)
    if any(struct.keys() - {"lora", "weight"} for struct in structs):
        return json.dumps(structs)
    return ";".join(
        struct["lora"] + (f":{canonical_json(struct['weight'])}" if "weight" in struct else "")
        for struct in structs
    )
