"""One row as written becomes one row as it will be made, or the list of all that is wrong with it.

Each part of a row is checked on its own, so that a wrong seed does not hide a wrong LoRA; what
concerns several parts (subjects in the prompt, LoRAs for the method) is checked when they are
right by themselves.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from manifests.json_text import load_json
from manifests.keys import canonical_json, row_key
from manifests.lora_fit import LoraFit
from manifests.place_names import parent
from manifests.problems import Problem
from manifests.readers import RawRow
from manifests.resolved import ResolvedLora, ResolvedRow
from manifests.row_loras import requested_loras, resolved_loras
from manifests.row_rules import RowModel, RowRules
from manifests.row_schema import KNOWN_COLUMNS, ManifestRow, carried_values, from_text
from manifests.wording import SettingsError, did_you_mean, sentences, shown, within

__all__ = ["RowChecker"]

MAX_REMEMBERED = 65_536
MAX_REMEMBERED_CHARACTERS = 10_000
GENERATED_ID_CHARACTERS = 16

_Findings = list[tuple[str, str]]
K = TypeVar("K")
T = TypeVar("T")
_Loras = tuple[tuple[ResolvedLora, ...], _Findings]
_Sampler = tuple[str, _Findings]


class RowChecker:
    """Checks the rows of one manifest; what many of them share is worked out once."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._lora_lists: dict[tuple[LoraFit, str, str], _Loras] = {}
        self._samplers: dict[tuple[RowModel, str], _Sampler] = {}
        self._first_use: dict[str, tuple[str, int, bytes]] = {}

    def check(self, raw: RawRow) -> tuple[ResolvedRow | None, list[Problem]]:
        """Return the resolved row, or None and every problem it has."""
        try:
            resolved, findings = self._check(raw)
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
        ]
        return (None if problems else resolved), problems

    def _check(self, raw: RawRow) -> tuple[ResolvedRow | None, _Findings]:
        values = from_text(raw.values) if raw.is_text else raw.values
        findings: _Findings = []
        row = None
        try:
            row = ManifestRow.model_validate(values)
        except ValidationError as error:
            findings.extend(sentences(error, known=KNOWN_COLUMNS, given=values))
        model, model_findings = self._model(values.get("base_model"))
        method = values.get("method") or self._rules.method
        if isinstance(method, str) and method not in self._rules.methods:
            hint = did_you_mean(method, self._rules.methods)
            findings.append(("method", f"is not a known method, got {shown(method)}; {hint}"))
        loras, lora_findings = self._loras(values.get("loras"), model, folder=parent(raw.place))
        sampler_json, sampler_findings = self._sampler(values.get("sampler"), model)
        findings.extend((*model_findings, *lora_findings, *sampler_findings))
        resolved = None
        if row is not None and model is not None and not findings:
            findings.extend(self._rules.composition_findings(str(method), row.prompt, loras))
            resolved = self._resolved(row, model, loras, sampler_json)
            findings.extend(self._id_findings(raw, row, resolved))
        return resolved, findings

    def _model(self, value: object) -> tuple[RowModel | None, _Findings]:
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
        loras: tuple[ResolvedLora, ...],
        sampler_json: str,
    ) -> ResolvedRow:
        rules = self._rules
        method = row.method or rules.method
        width = row.width or model.side_px
        height = row.height or model.side_px
        key = row_key(
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            loras=loras,
            seed=row.seed,
            method=method,
            width=width,
            height=height,
            sampler=sampler_json,
            base_model_digest=model.digest,
            dtype=rules.dtype,
            engine_version=rules.engine_version,
        )
        return ResolvedRow(
            key=key,
            base_model_digest=model.digest,
            row_id=row.row_id or key[:GENERATED_ID_CHARACTERS],
            prompt=row.prompt,
            negative_prompt=row.negative_prompt,
            loras=loras,
            seed=row.seed,
            method=method,
            width=width,
            height=height,
            sampler_json=sampler_json,
            carried_json=canonical_json(carried_values(row)),
        )

    def _id_findings(self, raw: RawRow, row: ManifestRow, resolved: ResolvedRow) -> _Findings:
        """Refuse a row id that stands for two different rows; the same row twice is no mistake."""
        if row.row_id is None:
            return []
        content = sha256(f"{resolved.key}\0{resolved.carried_json}".encode()).digest()[:16]
        place, line, first = self._first_use.setdefault(row.row_id, (raw.place, raw.line, content))
        if first == content:
            return []
        where = f"line {line}" if place == raw.place else f"{place}, line {line}"
        text = f"is also the id of {where}, which says something else, got {shown(row.row_id)}; "
        return [("row_id", text + "ids are unique")]

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
            _remember(self._lora_lists, name, name[-1], (loras, [*findings, *more]))
            return loras, [*findings, *more]
        return self._lora_lists[name]

    def _sampler(self, value: object, model: RowModel | None) -> _Sampler:
        if model is None:
            return "", []  # nothing says what the settings start from
        name = (model, repr(value))
        if name not in self._samplers:
            answer = self._sampler_anew(value, model)
            _remember(self._samplers, name, name[-1], answer)
            return answer
        return self._samplers[name]

    def _sampler_anew(self, value: object, model: RowModel) -> _Sampler:
        if isinstance(value, str):
            try:
                value = load_json(value)
            except (ValueError, RecursionError) as error:
                return "", [("sampler", f"is not valid JSON ({error}), got {shown(value)}")]
        if isinstance(value, list):  # how Arrow gives a map column
            pairs = cast("list[object]", value)
            if all(isinstance(pair, tuple) and len(cast("Any", pair)) == 2 for pair in pairs):
                value = dict(cast("list[tuple[object, object]]", pairs))
        if value is not None and not isinstance(value, Mapping):
            return "", [("sampler", f"should be a mapping of settings, got {shown(value)}")]
        given = cast("Mapping[str, object]", value or {})
        overrides = {name: item for name, item in given.items() if item is not None}
        try:
            return canonical_json(model.resolve_sampler(overrides)), []
        except SettingsError as error:
            return "", within("sampler", error.findings)
        except (ValueError, TypeError) as error:
            return "", [("sampler", f"{error}, got {shown(dict(overrides))}")]


def _remember(memory: dict[K, T], name: K, text: str, value: T) -> None:
    """Remember ``value`` under ``name``, unless the ``text`` in it is too long to keep."""
    if len(text) > MAX_REMEMBERED_CHARACTERS:
        return
    if len(memory) >= MAX_REMEMBERED:
        memory.clear()
    memory[name] = value
