"""What planning asks of that which rows share; worked out once for all rows that share it."""

from dataclasses import dataclass
from functools import lru_cache

from clora_core.recipe.first_phase import has_first_phase
from clora_core.recipe.key import sampler_json
from manifests.rows.checked_rows import shared_values

_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class SharedFacts:
    """Of rows with equal ``shared_json``.

    Attributes:
        base_model_digest: Their base model.
        num_concepts: LoRAs that stand for a subject.
        width: In pixels.
        height: In pixels.
        method: How LoRAs are combined.
        sampler_json: Their settings.
        files: Digests of the base model and of all LoRAs.
        lora_set: The beginnings of the digests of the LoRAs as one text, by which rows are sorted.
        is_unusable: Whether a LoRA's file cannot be used.
        has_first_phase: Whether rows of a batch may share a first phase.
    """

    base_model_digest: str
    num_concepts: int
    width: int
    height: int
    method: str
    sampler_json: str
    files: frozenset[str]
    lora_set: str
    is_unusable: bool
    has_first_phase: bool


@lru_cache(maxsize=16_384)
def shared_facts(text: str) -> SharedFacts:
    """Return the facts of rows whose ``shared_json`` is ``text``."""
    values = shared_values(text)
    loras = values["loras"]
    digests = sorted(lora.digest for lora in loras)
    return SharedFacts(
        base_model_digest=values["base_model_digest"],
        num_concepts=sum(lora.kind == "concept" for lora in loras),
        width=values["width"],
        height=values["height"],
        method=values["method"],
        sampler_json=sampler_json(values["sampler"]),
        files=frozenset({*digests, values["base_model_digest"]}),
        lora_set=" ".join(digest[:_DIGITS] for digest in digests),
        is_unusable=any(lora.problem for lora in loras),
        has_first_phase=has_first_phase(values["method"], values["sampler"]),
    )
