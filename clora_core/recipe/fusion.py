"""The adapter that a row of a fused method needs before it can be sampled.

Its key is the hash of all that decides it, so that rows, runs and outputs share what one of them
has made, and a changed LoRA file or setting makes another.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from clora_core.recipe.canonical import encoded, plain
from clora_core.recipe.config import ENGINE_VERSION, FUSION_VERSION, SamplerConfig
from clora_core.recipe.methods import METHODS
from clora_core.recipe.reading.syntax import syntax_acts
from clora_core.recipe.row import Lora, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """One adapter to be made.

    Attributes:
        key: sha256 (hex) of everything that decides the adapter.
        method: Whose recipe makes it.
        loras: The concepts, in the row's order.
        sampler: Holds the recipe's settings.
        base_model_digest: Identity of the base model that it is made for and with.
    """

    key: str
    method: str
    loras: tuple[Lora, ...]
    sampler: SamplerConfig
    base_model_digest: str

    @property
    def adapter_name(self) -> str:
        """The adapter's name, for messages."""
        return f"{self.method} of {' + '.join(lora.name for lora in self.loras)}"

    def settings(self) -> dict[str, object]:
        """Return the settings that decide the adapter."""
        values = self.sampler.model_dump(mode="json")
        return {name: values[name] for name in METHODS[self.method].fused_by or ()}

    def lora(self, uri: str) -> Lora:
        """Return the adapter, in the file ``uri``, as a LoRA of a row."""
        digest = f"fused:{self.key}"
        return Lora(name=self.adapter_name, uri=uri, digest=digest, kind="concept")


def fusion_of(row: Row, *, dtype: str) -> Fusion | None:
    """Return the adapter that ``row`` is sampled with; None if its method fuses nothing.

    Args:
        row: The row.
        dtype: Numbers that the base model computes with.
    """
    if METHODS[row.method].fused_by is None:
        return None
    return _fusion(row.method, row.concepts, row.sampler, row.base_model_digest, dtype)


@lru_cache(maxsize=4096)
def _fusion(
    method: str,
    concepts: tuple[Lora, ...],
    sampler: SamplerConfig,
    base_model_digest: str,
    dtype: str,
) -> Fusion:
    fusion = Fusion(
        key="",
        method=method,
        loras=concepts,
        sampler=sampler,
        base_model_digest=base_model_digest,
    )
    parts = {
        "base_model": base_model_digest,
        "dtype": dtype,
        # Images that it is fitted to and the sampling that it watches are the engine's.
        "engine": ENGINE_VERSION,
        "fusion": FUSION_VERSION,
        "loras": plain(
            [(lora.digest, lora.weight, lora.subject, lora.trigger) for lora in concepts]
        ),
        "method": method,
        "settings": fusion.settings(),
    }
    if sampler.clip_skip is not None:
        parts["clip_skip"] = sampler.clip_skip
    if syntax_acts(sampler.prompt_syntax, [lora.trigger or "" for lora in concepts]):
        parts["prompt_syntax"] = sampler.prompt_syntax
    key = hashlib.sha256(encoded(parts).encode()).hexdigest()
    return Fusion(
        key=key,
        method=method,
        loras=concepts,
        sampler=sampler,
        base_model_digest=base_model_digest,
    )
