"""The recipe that a picture carries, held to the rules of manifest rows before it is believed.

A picture may come from a stranger or from another version. Each field has the type and the range
that it has in a manifest, and all that is wrong is said at once.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from clora_core.recipe.canonical import canonical_json
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.findings import composition_findings
from clora_core.recipe.lora.embeddings import MAX_VECTORS
from clora_core.recipe.methods import METHODS
from clora_core.recipe.prompts.chunks import MAX_CHUNKS
from clora_core.recipe.row import LoraKind, Row
from manifests.rows.loras import MAX_LORAS
from manifests.rows.regions import RegionRequest
from manifests.rows.schema import MAX_SIDE_PX, Side
from manifests.rows.table import row_of
from manifests.text.given_names import checked
from manifests.text.json_text import load_json
from manifests.text.sections import section_of
from manifests.text.text_rules import AnyText, Prompt, RowId, ShortText
from manifests.text.whole_numbers import MAX_SEED
from manifests.text.wording import Findings, did_you_mean, sentences, shown, within

MAX_REMARKS = 100
MAX_WORDS = 1000

_INDEX = re.compile(r"\.(\d+)(?=\.|\Z)")


def _is_digest(value: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", value) is None:
        raise ValueError("should be the 64 hexadecimal digits of a sha256")
    return value


def _is_region(text: str) -> str:
    """Refuse what is no resolved region, see ``manifests.rows.regions``."""
    try:
        value = load_json(text, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"should be a region in JSON ({str(error)[:100]})") from None
    region = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    mask = region.get("mask")
    if isinstance(mask, dict):
        region = region | {"mask": cast("dict[str, Any]", mask).get("uri")}
    elif mask is not None:
        raise ValueError("should name its mask by uri and sha256")
    if "mode" not in region:
        raise ValueError("should be a region with a mode, and box or mask")
    try:
        RegionRequest.model_validate(region)
    except ValidationError as error:
        raise ValueError("; ".join(f"{name} {text}" for name, text in sentences(error))) from None
    return text


Digest = Annotated[str, Field(strict=True), AfterValidator(_is_digest)]
Count = Annotated[int, Field(ge=0, le=2**31, strict=True)]
SeedNumber = Annotated[int, Field(ge=0, le=MAX_SEED, strict=True)]
Pixels = Annotated[int, Field(ge=1, le=MAX_SIDE_PX, strict=True)]


class RecipeWord(BaseModel):
    """An embedding of a LoRA's file, by the name that the texts call it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ShortText
    num_vectors: Annotated[int, Field(ge=1, le=MAX_VECTORS, strict=True)]


class RecipeLora(BaseModel):
    """A LoRA of a recipe; its file is found by digest. Fields as in its column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: RowId
    digest: Digest
    kind: LoraKind
    weight: Annotated[float, Field(ge=-10.0, le=10.0, allow_inf_nan=False, strict=True)]
    subject: ShortText | None
    trigger: ShortText | None
    region_json: Annotated[str, Field(strict=True), AfterValidator(_is_region)] | None
    words: Annotated[tuple[RecipeWord, ...], Field(max_length=MAX_WORDS)] = ()


class Recipe(BaseModel):
    """What making a picture again takes; fields as a row's columns, and how it was made.

    Fields of later versions are not looked at: ``unknown_fields`` names them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: Digest
    prompt: Prompt
    negative_prompt: AnyText
    loras: Annotated[tuple[RecipeLora, ...], Field(max_length=MAX_LORAS)]
    seed: SeedNumber
    method: RowId
    width: Pixels
    height: Pixels
    sampler: dict[str, Any]
    base_model_digest: Digest
    versions: dict[RowId, ShortText]
    row_id: ShortText | None = None
    batch_size: Count | None = None
    batch_slot: Count | None = None
    digital_source_type: ShortText | None = None
    text_chunks: Annotated[int, Field(ge=1, le=MAX_CHUNKS, strict=True)] | None = None
    remarks: Annotated[tuple[ShortText, ...], Field(max_length=MAX_REMARKS)] = ()

    def row(self, uris: Mapping[str, str]) -> Row:
        """Return the row that makes the picture, its LoRAs at ``uris``, by digest."""
        values = self.model_dump()
        loras = [{**lora, "uri": uris.get(lora["digest"], "")} for lora in values["loras"]]
        return row_of(
            {
                **values,
                "row_id": self.row_id or "",
                "loras": loras,
                "sampler_json": canonical_json(self.sampler),
                "carried_json": "{}",
            }
        )


_FIELDS = tuple(Recipe.model_fields)
_SECTION = section_of(Recipe)


def checked_recipe(
    given: Mapping[str, Any], *, width_px: int, height_px: int
) -> tuple[Recipe | None, Findings]:
    """Return the recipe, or None and everything that is wrong with it.

    Args:
        given: As the picture has it.
        width_px: The picture's own width.
        height_px: The picture's own height.
    """
    known = {name: value for name, value in given.items() if name in _FIELDS}
    recipe, findings = checked(Recipe, known, _SECTION)
    findings += _method_findings(given.get("method"))
    findings += _sampler_findings(given.get("sampler"))
    for name, own in (("width", width_px), ("height", height_px)):
        asked = given.get(name)
        if type(asked) is int and asked != own:
            text = (
                f"is {asked:,}, and the picture has {own:,} px; name it as it was made, not scaled"
            )
            findings.append((name, text))
    if recipe is not None and not findings:
        findings += _lora_findings(recipe)
    findings = [(_INDEX.sub(r"[\1]", field), text) for field, text in findings]
    return (None if findings else recipe), findings


def size_findings(recipe: Recipe, own_side_px: int) -> Findings:
    """Return what is wrong with the size: a row's limits hold for all but a model's own side."""
    findings: Findings = []
    for name, side in (("width", recipe.width), ("height", recipe.height)):
        if side != own_side_px:
            try:
                TypeAdapter(Side).validate_python(side)
            except ValidationError as error:
                findings += [(name, text) for _, text in sentences(error)]
    return findings


def unknown_fields(given: Mapping[str, Any]) -> list[str]:
    """Return the names of fields that this version has no use for."""
    return [name for name in given if name not in _FIELDS]


def _method_findings(method: object) -> Findings:
    if not isinstance(method, str) or method in METHODS:
        return []  # a wrong type is among the other findings
    hint = did_you_mean(method, tuple(METHODS))
    return [("method", f"is not a known method, got {shown(method)}; {hint}")]


def _sampler_findings(sampler: object) -> Findings:
    if not isinstance(sampler, Mapping):
        return []
    try:
        text = canonical_json(cast("Mapping[str, Any]", sampler))
        _, findings = checked(SamplerConfig, json.loads(text), section_of(SamplerConfig))
    except (ValueError, TypeError) as error:
        return [("sampler", f"{error}, got {shown(sampler)}")]
    return within("sampler", findings)


def _lora_findings(recipe: Recipe) -> Findings:
    """Return why the LoRAs, the method and the prompt do not go together, as of a manifest row."""
    names = [lora.name for lora in recipe.loras]
    findings: Findings = [
        ("loras", f"names {name!r} twice; a picture has each LoRA once")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    findings += [
        (f"loras.{index}.subject", "is required of a concept; only a style has none")
        for index, lora in enumerate(recipe.loras)
        if lora.kind == "concept" and lora.subject is None
    ]
    if findings:
        return findings
    row = recipe.row({})
    return composition_findings(
        recipe.method,
        recipe.prompt,
        row.loras,
        negative_prompt=recipe.negative_prompt,
        syntax=row.sampler.prompt_syntax,
    )
