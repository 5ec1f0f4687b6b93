"""A manifest row as the rest of the system sees it: checked, complete, frozen.

Every default is applied and every name is resolved, so whatever happens to a row later depends
on nothing but its own fields. A row whose LoRA file cannot be used is still a row: it is planned
like the others and ends as an error with the file's sentence, because a broken file is a fact
about some rows and not about the manifest.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["LoraKind", "ResolvedLora", "ResolvedRow"]

LoraKind = Literal["concept", "style"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedLora:
    """One LoRA of one row.

    Attributes:
        name: The catalog name, which is also the column name of its score.
        uri: Absolute local path of the safetensors file, or a URI that ``file_cache.local_copy``
            brings to the machine that needs it.
        digest: Identity (hex) of tensors and strength, see ``digests``; of an unusable file
            ``broken:`` and the sha256 of whatever bytes it has, or ``broken:missing``.
        kind: ``concept`` (stands for ``subject``, gets a mask) or ``style`` (acts everywhere).
        weight: Multiplier of the adapter's effect; 1 is as trained.
        subject: The noun in the prompt that a concept stands for; None for a style.
        trigger: Words that call the LoRA up, put before the subject; None if it has none.
        region_json: Canonical JSON of where in the image it may act, see ``manifests.regions``;
            None for anywhere.
        a1111_hash: What A1111 and Civitai (AutoV3) call the file: 12 hex digits over its data
            section; None if the file cannot be used. Changes no pixel.
        problem: Why the file cannot be used, as a sentence that names it; None if it can.
    """

    name: str
    uri: str
    digest: str
    kind: LoraKind
    weight: float
    subject: str | None
    trigger: str | None
    region_json: str | None = None
    a1111_hash: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedRow:
    """One image to make.

    Attributes:
        key: sha256 (hex) of everything that changes pixels; see ``manifests.keys``.
        base_model_digest: Identity of the base model that makes it.
        row_id: The caller's own name of the row, unique in the manifest; echoed, never used.
        prompt: What to draw.
        negative_prompt: What to steer away from; empty for nothing.
        loras: The LoRAs in the order the row gives them.
        seed: Start of the row's own random numbers, 0 .. 2**63 - 1.
        method: How the LoRAs are combined.
        width: Image width in pixels.
        height: Image height in pixels.
        sampler_json: Canonical JSON of the complete sampler settings of this row.
        carried_json: Canonical JSON of the manifest's other columns, for the output.
    """

    key: str
    base_model_digest: str
    row_id: str
    prompt: str
    negative_prompt: str
    loras: tuple[ResolvedLora, ...]
    seed: int
    method: str
    width: int
    height: int
    sampler_json: str
    carried_json: str

    @property
    def problem(self) -> str | None:
        """Why this row cannot be made (the first unusable LoRA file), or None."""
        return next((lora.problem for lora in self.loras if lora.problem is not None), None)
