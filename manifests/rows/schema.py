"""The columns of a manifest row and the rule of each.

A row is validated once, by a frozen pydantic model, before names are looked up in anything. Every
other column is the caller's own and is carried through to the output as it is; ``rows.columns``
finds those that are mistakes.
"""

import base64
import datetime
import decimal
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from clora_core.recipe.canonical import canonical_json
from manifests.text.text_rules import AnyText, Prompt, RowId
from manifests.text.whole_numbers import seed_number, whole_number

MAX_SIDE_PX = 4096


def _identifier(value: object) -> object:
    """Let an integer through as a name: ids are numbers in many tables."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _multiple_of_8(value: int) -> int:
    if value % 8:
        raise ValueError(
            f"should be a multiple of 8; the nearest are {value // 8 * 8} and {value // 8 * 8 + 8}"
        )
    return value


Seed = Annotated[int, BeforeValidator(seed_number), Field(strict=True)]
Side = Annotated[
    int,
    BeforeValidator(whole_number),
    Field(ge=64, le=MAX_SIDE_PX, strict=True),
    AfterValidator(_multiple_of_8),
]


class ManifestRow(BaseModel):
    """One row as its author wrote it.

    Attributes:
        prompt: What to draw; holds the subject of every concept LoRA.
        seed: Start of the row's random numbers, see ``whole_numbers``.
        row_id: The author's name of the row; unique.
        base_model: The job's name of the base model; the job's default if not given.
        method: How to combine the LoRAs; the job's if not given.
        negative_prompt: What to steer away from.
        width: In pixels; the base model's own size if not given.
        height: As width.
        loras: Checked apart, see ``rows.loras``.
        sampler: Checked apart, see ``sampler_settings``.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    prompt: Prompt
    seed: Seed
    row_id: Annotated[RowId | None, BeforeValidator(_identifier)] = None
    base_model: Annotated[str | None, Field(strict=True)] = None
    method: Annotated[str | None, Field(strict=True)] = None
    negative_prompt: AnyText = ""
    width: Side | None = None
    height: Side | None = None
    loras: Any = None
    sampler: Any = None


def carried_values(row: ManifestRow) -> dict[str, Any]:
    """Return the columns that are the caller's own, as values that JSON can say.

    Times become ISO texts, decimals texts, bytes base64; NaN becomes null. The name of the base
    model is among them, because everything else knows that by its digest.
    """
    carried = {name: _as_json(value) for name, value in (row.model_extra or {}).items()}
    return carried | ({"base_model": row.base_model} if row.base_model else {})


def value_json(value: object) -> str:
    """Return the canonical JSON of one of the ``carried_values`` as it was given."""
    return canonical_json(_as_json(value))


def _as_json(value: object) -> object:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _as_json(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, Sequence):
        return [_as_json(item) for item in cast("Sequence[object]", value)]
    return str(value)
