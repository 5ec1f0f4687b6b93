"""The LoRAs that a row names: a list of names, of structs, or one text.

``cat; dog:0.8`` and ``["cat", {"lora": "dog", "weight": 0.8}]`` say the same (see
``lora_values``). What the row leaves open comes from the catalog, and only LoRAs that a row names
are looked at on disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field

from clora_core.recipe.config import PromptSyntax
from clora_core.recipe.reading.syntax import written
from clora_core.recipe.row import Lora
from clora_core.recipe.word_findings import unwritable
from manifests.loras.catalog import LoraEntry, is_kept_out, unknown_loras
from manifests.loras.embeddings import embedded_words
from manifests.loras.file import LoraFileInfo
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError
from manifests.rows.lora_values import lora_items, lora_struct
from manifests.rows.regions import RegionRequest, resolved_region
from manifests.text.given_names import checked
from manifests.text.sections import section_of
from manifests.text.text_rules import RowId, ShortText
from manifests.text.wording import WHOLE, Findings, shown, within

MAX_LORAS = 16
A1111_DIGITS = 12


class LoraRequest(BaseModel):
    """One LoRA as a row names it; None leaves the catalog's value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lora: RowId
    weight: Annotated[float | None, Field(ge=-10.0, le=10.0, allow_inf_nan=False, strict=True)] = (
        None
    )
    subject: ShortText | None = None
    trigger: ShortText | None = None
    region: RegionRequest | None = None


_SECTION = section_of(LoraRequest)


def requested_loras(value: object) -> tuple[tuple[LoraRequest, ...], Findings]:
    """Return what a row's ``loras`` value asks for, and what is wrong with it.

    Args:
        value: None, or what ``lora_values`` reads.
    """
    try:
        items = lora_items(value)
    except ValueError as error:
        return (), [("loras", f"{error}, got {shown(value)}")]
    if len(items) > MAX_LORAS:
        return (), [("loras", f"should be at most {MAX_LORAS} LoRAs, got {len(items)}")]
    requests: list[LoraRequest] = []
    findings: Findings = []
    for number, item in enumerate(items):
        struct = lora_struct(item)
        if isinstance(struct, Mapping):
            given = {str(k): v for k, v in cast("Mapping[object, object]", struct).items()}
            request, found = checked(LoraRequest, given, _SECTION)
        else:
            request, found = None, [(WHOLE, f"should be a name or a struct, got {shown(struct)}")]
        findings += within(f"loras[{number}]", found)
        if request is not None:
            requests.append(request)
    names = [request.lora for request in requests]
    findings.extend(
        ("loras", f"names {name!r} twice; name each LoRA once, with the weight it should have")
        for name in sorted({name for name in names if names.count(name) > 1})
    )
    return tuple(requests), findings


def resolved_loras(
    requests: Sequence[LoraRequest],
    *,
    catalog: Mapping[str, LoraEntry],
    files: LoraFiles,
    fit: LoraFit,
    folder: str,
    allowed: AllowedRoots = EVERYWHERE,
) -> tuple[tuple[Lora, ...] | None, Findings]:
    """Return the requested LoRAs with the catalog's values filled in, and what cannot be.

    None, and no finding of it, where the catalog's own problems keep one of them out.

    Args:
        requests: From ``requested_loras``.
        catalog: LoRAs by name.
        files: Looks at the LoRAs' files.
        fit: What the row's base model asks of LoRAs.
        folder: The manifest's, where relative mask files start.
        allowed: Where mask files may be.
    """
    resolved: list[Lora] = []
    findings: Findings = []
    for request in requests:
        entry = catalog.get(request.lora)
        if entry is None:
            findings += [("loras", text) for text in unknown_loras([request.lora], catalog)]
            continue
        lora = named_lora(request, entry)
        if lora.kind == "concept" and lora.subject is None:
            text = (
                f"LoRA {request.lora!r} is a concept and has no subject; name the noun that it "
                "stands for in the catalog, or in the row as {lora, subject}"
            )
            findings.append(("loras", text))
            continue
        if request.region is not None:
            if entry.kind == "style":
                text = (
                    f"LoRA {request.lora!r} is a style, which acts everywhere; leave its region out"
                )
                findings.append(("loras", text))
            try:
                region = resolved_region(request.region, folder=folder, allowed=allowed)
                lora = replace(lora, region=region)
            except LocationError as error:
                findings.append(("loras", f"the region of LoRA {request.lora!r}: {error}"))
        state = files.state(entry, fit)
        if state.info is not None:
            lora, found = _with_words(lora, state.info)
            findings += found
        resolved.append(
            replace(
                lora,
                uri=files.place(entry),
                digest=state.digest,
                a1111_hash=state.info.data_sha256[:A1111_DIGITS] if state.info else None,
                problem=state.problem,
            )
        )
    is_whole = not any(is_kept_out(request.lora, catalog) for request in requests)
    return tuple(resolved) if is_whole else None, findings


def _with_words(lora: Lora, info: LoraFileInfo) -> tuple[Lora, Findings]:
    """Return the LoRA with the embeddings of its file, and what of the row cannot act on them."""
    words = embedded_words(info.embeddings, lora.uri)
    if not words:
        return lora, []
    findings: Findings = []
    if info.num_layers == 0 and lora.weight != 1:
        way_out = "leave the LoRA out"
        if lora.weight != 0:
            word = written(words[0].name, "weighted") or words[0].name
            way_out = (
                "leave the weight out, and set `prompt_syntax: weighted` and write "
                f"({word}:{lora.weight:g}) in a text for emphasis"
            )
        text = (
            f"LoRA {lora.name!r} holds embeddings alone, and a weight has nothing to act on, got "
            f"{shown(lora.weight)}; {way_out}"
        )
        findings.append(("loras", text))
    return replace(lora, words=words), findings


def called_by_words(
    loras: Sequence[Lora], syntax: PromptSyntax
) -> tuple[tuple[Lora, ...], Findings]:
    """Return the LoRAs with the triggers that embeddings give them, and what no text can name.

    A concept that has no trigger and one embedding is called by that.

    Args:
        loras: From ``resolved_loras``.
        syntax: How the row's texts, and so its triggers, are read.
    """
    called: list[Lora] = []
    findings: Findings = []
    for lora in loras:
        trigger = lora.trigger
        if trigger is None and lora.kind == "concept" and len(lora.words) == 1:
            (word,) = lora.words
            trigger = written(word.name, syntax)
            if trigger is None:
                text = (
                    f"LoRA {lora.name!r} has no trigger and is called by its embedding "
                    f"{shown(word.name)}, but {unwritable(word.name, syntax)}"
                )
                findings.append(("loras", text))
        called.append(lora if trigger == lora.trigger else replace(lora, trigger=trigger))
    return tuple(called), findings


def named_lora(request: LoraRequest, entry: LoraEntry) -> Lora:
    """Return the LoRA as row and catalog say it; its files are not looked at, so no digest yet."""
    return Lora(
        name=entry.name,
        uri=entry.uri,
        digest="",
        kind=entry.kind,
        weight=entry.weight if request.weight is None else float(request.weight),
        # A style has no place in the prompt, so a subject would change no pixel.
        subject=(request.subject or entry.subject) if entry.kind == "concept" else None,
        trigger=request.trigger or entry.trigger,
        region=None if request.region is None else request.region.as_written(),
    )
