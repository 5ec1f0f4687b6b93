"""One row as written becomes one row as it will be made, or the list of all that is wrong with it.

Each part of a row is checked on its own, so that a wrong seed does not hide a wrong LoRA; what
concerns several parts (subjects in the prompt, LoRAs for the method) is checked when they are
right by themselves.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from clora_core.recipe.canonical import canonical_json
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.findings import composition_findings
from clora_core.recipe.key import row_key
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Row
from clora_core.recipe.word_findings import word_findings
from manifests.loras.file import LoraFileInfo
from manifests.loras.fit import LoraFit
from manifests.places.place_names import parent
from manifests.rows.id_check import RowIds, UsedId
from manifests.rows.loras import called_by_words, requested_loras, resolved_loras
from manifests.rows.model_checks.fused_check import fused_findings
from manifests.rows.model_checks.map_check import map_findings
from manifests.rows.remarks import lora_remarks
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.sampler_settings import resolve_sampler
from manifests.rows.schema import ManifestRow, carried_values
from manifests.rows.text_reader import text_chunks
from manifests.tables.readers import RawRow
from manifests.text.cell_text import load_cell
from manifests.text.problems import Problem
from manifests.text.text_rules import is_missing
from manifests.text.wording import (
    WHOLE,
    Findings,
    SettingsError,
    did_you_mean,
    sentences,
    shown,
    within,
)

MAX_REMEMBERED = 65_536
MAX_REMEMBERED_CHARACTERS = 10_000
GENERATED_ID_CHARACTERS = 16

_COLUMN_END = re.compile(r"[.\[]")
K = TypeVar("K")
T = TypeVar("T")
_Loras = tuple[tuple[Lora, ...] | None, Findings, tuple[str, ...]]
_Sampler = tuple[SamplerConfig, Findings]


class RowChecker:
    """Checks the rows of one manifest; what many of them share is worked out once."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._lora_lists: dict[tuple[LoraFit, str, str], _Loras] = {}
        self._samplers: dict[tuple[RowModel, str], _Sampler] = {}
        self._ids = RowIds()

    def check(
        self, raw: RawRow, *, settled: Collection[str] = ()
    ) -> tuple[Row | None, list[Problem]]:
        """Return the resolved row, or None and every problem it has.

        Args:
            raw: As it was read.
            settled: Columns that a problem of the file speaks of; here no more is said of them.
        """
        row, problems, used = self.check_but_id(raw, settled=settled)
        problem = None if used is None else self._ids.problem(used)
        if problem is None or "row_id" in settled:
            return row, problems
        return None, [*problems, problem]

    def check_but_id(
        self, raw: RawRow, *, settled: Collection[str] = ()
    ) -> tuple[Row | None, list[Problem], UsedId | None]:
        """Return what ``check`` does but for ids that stand for two rows, and the row's own id."""
        used = None
        try:
            resolved, findings, given_id = self._check(raw)
            if resolved is not None and given_id is not None:
                used = UsedId.of(resolved, row_id=given_id, place=raw.place, line=raw.line)
        except RecursionError:
            resolved, findings = None, [("(row)", "is nested too deeply; flatten its values")]
        row_id = raw.values.get("row_id")
        problems = [
            Problem(
                place=raw.place,
                line=raw.line,
                row_id=None if row_id is None else str(row_id)[:200],
                field=field,
                problem=text,
            )
            for field, text in findings
            if not settled or _COLUMN_END.split(field, maxsplit=1)[0] not in settled
        ]
        return (None if problems else resolved), problems, used

    def _check(self, raw: RawRow) -> tuple[Row | None, Findings, str | None]:
        values = raw.values
        findings: Findings = []
        row = None
        try:
            row = ManifestRow.model_validate(values)
        except ValidationError as error:
            findings.extend(sentences(error))
        findings.extend(_rounded(values, raw.exact_to))
        model, model_findings = self._model(values.get("base_model"))
        method = values.get("method") or self._rules.method
        if isinstance(method, str) and method not in METHODS:
            hint = did_you_mean(method, tuple(METHODS))
            findings.append(("method", f"is not a known method, got {shown(method)}; {hint}"))
        loras, lora_findings, remarks = self._loras(
            values.get("loras"), model, folder=parent(raw.place)
        )
        sampler, sampler_findings = self._sampler(values.get("sampler"), model)
        if model is not None and loras is not None and not sampler_findings:
            loras, called_findings = called_by_words(loras, sampler.prompt_syntax)
            findings.extend(called_findings)
        findings.extend((*model_findings, *lora_findings, *sampler_findings))
        resolved = None
        if row is not None and model is not None and loras is not None and not findings:
            findings.extend(
                composition_findings(
                    str(method),
                    row.prompt,
                    loras,
                    negative_prompt=row.negative_prompt,
                    syntax=sampler.prompt_syntax,
                )
            )
            resolved = self._resolved(row, model, loras, sampler, remarks)
            if not findings:
                findings.extend(word_findings(resolved))
                findings.extend(fused_findings(resolved, lambda lora: self._info(lora, model)))
            findings.extend(map_findings(resolved, model.maps))
            if not findings and model.text is not None:
                chunks, text_findings = text_chunks(resolved, model.text)
                findings.extend(text_findings)
                resolved = replace(resolved, text_chunks=chunks)
            resolved = self._keyed(row, resolved)
        return resolved, findings, None if row is None else row.row_id

    def _model(self, value: object) -> tuple[RowModel | None, Findings]:
        """Return the row's base model, or None and why it has none."""
        name = value or ""
        if not isinstance(name, str):
            return None, []  # told by the row's schema
        models = self._rules.base_models
        if name in models:
            return models[name], []
        known = tuple(other for other in models if other)
        hint = (
            did_you_mean(name, known)
            if known
            else "it has none: name it there, or give a column of your own another name"
        )
        text = f"is not among the job's base_models, got {shown(name)}; {hint}"
        return None, [("base_model", text)]

    def _resolved(
        self,
        row: ManifestRow,
        model: RowModel,
        loras: tuple[Lora, ...],
        sampler: SamplerConfig,
        remarks: tuple[str, ...],
    ) -> Row:
        """Return the row with all defaults, its key yet to be worked out."""
        return Row(
            base_model_digest=model.digest,
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            loras=loras,
            seed=row.seed,
            method=row.method or self._rules.method,
            width=row.width or model.side_px,
            height=row.height or model.side_px,
            sampler=sampler,
            carried_json=canonical_json(carried_values(row)),
            remarks=remarks,
        )

    def _keyed(self, row: ManifestRow, resolved: Row) -> Row:
        key = row_key(resolved, dtype=self._rules.dtype)
        return replace(resolved, key=key, row_id=row.row_id or key[:GENERATED_ID_CHARACTERS])

    def _info(self, lora: Lora, model: RowModel) -> LoraFileInfo | None:
        return self._rules.lora_files.state(self._rules.catalog[lora.name], model.lora_fit).info

    def _loras(self, value: object, model: RowModel | None, *, folder: str) -> _Loras:
        fit = LoraFit() if model is None else model.lora_fit
        name = (fit, folder, repr(value))
        if name not in self._lora_lists:
            requests, findings = requested_loras(value)
            loras, more = resolved_loras(
                requests,
                catalog=self._rules.catalog,
                files=self._rules.lora_files,
                fit=fit,
                folder=folder,
                allowed=self._rules.allowed,
            )
            remarks = lora_remarks(
                loras or (),
                lambda lora: self._rules.lora_files.state(self._rules.catalog[lora.name], fit),
            )
            answer = loras, [*findings, *more], remarks
            _remember(self._lora_lists, name, name[-1], answer)
            return answer
        return self._lora_lists[name]

    def _sampler(self, value: object, model: RowModel | None) -> _Sampler:
        if model is None:
            return SamplerConfig(), []  # nothing says what the settings start from
        name = (model, repr(value))
        if name not in self._samplers:
            answer = _resolved_sampler(value, model.sampler)
            _remember(self._samplers, name, name[-1], answer)
            return answer
        return self._samplers[name]


def _rounded(values: Mapping[str, Any], exact_to: Mapping[str, int]) -> Findings:
    """Return the seed that a column of short floats has rounded, as a finding."""
    limit, seed = exact_to.get("seed"), values.get("seed")
    if limit is None or not isinstance(seed, float) or abs(seed) < limit:
        return []
    text = (
        f"should not be a floating-point number of so few bits from {limit} on, because these are "
        f"rounded; write the column as integers, got {shown(seed)}"
    )
    return [("seed", text)]


def _resolved_sampler(value: object, base: SamplerConfig) -> _Sampler:
    try:
        return resolve_sampler(_overrides(value), base=base), []
    except SettingsError as error:
        return base, within("sampler", error.findings)


def _overrides(value: object) -> dict[str, object]:
    """Return the settings that a row gives; SettingsError if it gives none that can be read."""
    if isinstance(value, str):
        try:
            value = load_cell(value)
        except ValueError as error:
            text = f"{error}, got {shown(value)}"
            if value.strip()[:1].isalpha():  # other tools call the solver so
                text += '; a solver is a setting, such as {"scheduler": "euler"}'
            raise SettingsError([(WHOLE, text)]) from None
    if isinstance(value, list):  # how Arrow gives a map column
        pairs = cast("list[object]", value)
        if all(isinstance(pair, tuple) and isinstance(cast("Any", pair)[0], str) for pair in pairs):
            value = dict(cast("list[tuple[object, object]]", pairs))
    if value is not None and not isinstance(value, Mapping):
        raise SettingsError([(WHOLE, f"should be a mapping of settings, got {shown(value)}")])
    given = cast("Mapping[str, object]", value or {})
    return {name: item for name, item in given.items() if not is_missing(item)}


def _remember(memory: dict[K, T], name: K, text: str, value: T) -> None:
    """Remember ``value`` under ``name``, unless the ``text`` in it is too long to keep."""
    if len(text) > MAX_REMEMBERED_CHARACTERS:
        return
    if len(memory) >= MAX_REMEMBERED:
        memory.clear()
    memory[name] = value
