"""A row: everything one image is made from, complete and frozen, from the check to the sampler.

Every default is applied and every name is resolved, so the image depends on the row's own fields
and the base model alone; the batch a row travels in changes nothing beyond rounding. A row whose
LoRA file cannot be used is still a row: it is planned like the others and ends as an error with the
file's sentence, because a broken file is a fact about some rows and not about the manifest.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from clora_core.recipe.canonical import canonical_json
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.reading.embedded import EmbeddedWord

LoraKind = Literal["concept", "style"]
RegionMode = Literal["restrict", "replace"]

LocalPath = Callable[[str], str]
"""Brings a URI to this machine and returns the local file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of the image; exactly one of ``box`` and ``mask_uri`` is given.

    Attributes:
        box: Left, top, right, bottom as shares of width and height, 0 to 1.
        mask_uri: A greyscale image, stretched over the whole picture; light is inside. For the
            sampler a local file.
        mask_sha256: Of the mask's bytes (hex), which stands for it in a row's key.
        mode: ``restrict`` keeps the attention mask inside the region; ``replace`` takes the region
            as the mask. Method ``merge`` has no attention masks and takes both as ``replace``.
    """

    box: tuple[float, float, float, float] | None = None
    mask_uri: str | None = None
    mask_sha256: str = ""
    mode: RegionMode = "restrict"

    def __post_init__(self) -> None:
        """Hold to one of the two."""
        if (self.box is None) == (self.mask_uri is None):
            raise ValueError("a region has either a box or a mask")

    def to_json(self) -> str:
        """Return the canonical JSON: ``box`` or ``mask`` (sha256 and uri), and ``mode``."""
        if self.mask_uri is None:
            return canonical_json({"box": self.box, "mode": self.mode})
        mask = {"sha256": self.mask_sha256, "uri": self.mask_uri}
        return canonical_json({"mask": mask, "mode": self.mode})

    @classmethod
    def from_json(cls, text: str) -> "Region":
        """Return the region that ``to_json`` wrote as ``text``."""
        region: dict[str, Any] = json.loads(text)
        mode = region["mode"]
        if "mask" in region:
            mask = region["mask"]
            return cls(mask_uri=mask["uri"], mask_sha256=mask["sha256"], mode=mode)
        left, top, right, bottom = map(float, region["box"])
        return cls(box=(left, top, right, bottom), mode=mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """One LoRA in one row.

    Attributes:
        name: The catalog's name, for messages and for the column of its score.
        uri: The safetensors file, or a folder that peft has written: an absolute local path, or a
            URI that ``Row.with_local_files`` brings to the machine that samples.
        digest: Identity of the LoRA (hex): its tensors, and a strength that they do not hold. Of
            an unusable file ``broken:`` and the sha256 of whatever bytes it has, or
            ``broken:missing``.
        kind: ``concept`` stands for ``subject`` and gets a mask; ``style`` acts on the whole image.
        weight: Factor of the LoRA's delta. 1 is as trained.
        subject: The noun of the prompt that a concept stands for; None for a style.
        trigger: Words put before the subject; None for none.
        region: Where in the image the concept may act; None for wherever its attention is.
        a1111_hash: What A1111 and Civitai (AutoV3) call the file: 12 hex digits over its data
            section; None if it is not known. Changes no pixel.
        problem: Why the file cannot be used, as a sentence that names it; None if it can.
        words: Embeddings that the file holds, in its order, by the names that texts call them.
    """

    name: str
    uri: str
    digest: str
    kind: LoraKind
    weight: float = 1.0
    subject: str | None = None
    trigger: str | None = None
    region: Region | None = None
    a1111_hash: str | None = None
    problem: str | None = None
    words: tuple[EmbeddedWord, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One image to make.

    Attributes:
        prompt: What to draw.
        loras: In the order that sums take.
        seed: Start of the row's own random numbers, 0 .. 2**63 - 1.
        method: How the LoRAs are combined; a name of ``methods.METHODS``.
        sampler: The complete settings.
        negative_prompt: What to steer away from; empty for nothing.
        width: In pixels.
        height: In pixels.
        key: sha256 (hex) of everything that changes pixels, see ``key.row_key``.
        row_id: The caller's own name of the row, unique in a manifest; echoed, never used.
        base_model_digest: Identity of the base model that makes it.
        carried_json: Canonical JSON of the manifest's other columns, for the output.
        text_chunks: Windows of the text encoder that each of its texts fills or is padded to, see
            ``prompts.chunks``; None where nobody has counted yet.
        remarks: What was noticed while the row was read and is no mistake, a sentence each; for
            the output. Changes no pixel.
        fused: The adapter that its concepts were fused into, set where a row of a fused method is
            sampled; see ``fusion``.
    """

    prompt: str
    loras: tuple[Lora, ...]
    seed: int
    method: str
    sampler: SamplerConfig
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    key: str = ""
    row_id: str = ""
    base_model_digest: str = ""
    carried_json: str = "{}"
    text_chunks: int | None = None
    remarks: tuple[str, ...] = ()
    fused: Lora | None = None

    @property
    def sampled_loras(self) -> tuple[Lora, ...]:
        """The LoRAs that the sampler applies: with a fused adapter, that and the styles."""
        if self.fused is None:
            return self.loras
        return (self.fused, *(lora for lora in self.loras if lora.kind == "style"))

    @property
    def concepts(self) -> tuple[Lora, ...]:
        """The LoRAs that stand for a subject, in the row's order."""
        return tuple(lora for lora in self.loras if lora.kind == "concept")

    @property
    def words(self) -> tuple[EmbeddedWord, ...]:
        """The embeddings of all LoRAs, in the row's order."""
        return tuple(word for lora in self.loras for word in lora.words)

    @property
    def is_placed(self) -> bool:
        """Whether regions alone say where every concept is, so that no mask is looked for."""
        return all(
            lora.region is not None and lora.region.mode == "replace" for lora in self.concepts
        )

    @property
    def kinds(self) -> tuple[LoraKind, ...]:
        """The kind of each LoRA, in the row's order."""
        return tuple(lora.kind for lora in self.loras)

    @property
    def problem(self) -> str | None:
        """Why this row cannot be made (the first unusable LoRA file), or None."""
        return next((lora.problem for lora in self.loras if lora.problem is not None), None)

    def with_local_files(self, *, local_lora: LocalPath, local_mask: LocalPath) -> "Row":
        """Return the row with its LoRA and mask files on this machine, as the sampler takes it.

        LoRAs that were fused are not sampled with, so their files are not needed.

        Args:
            local_lora: Brings a LoRA, with whatever beside its file says its strength.
            local_mask: Brings a mask.
        """
        is_fused = self.fused is not None
        loras = tuple(
            lora
            if is_fused and lora.kind == "concept"
            else _with_local_files(lora, local_lora, local_mask)
            for lora in self.loras
        )
        return replace(self, loras=loras)


def _with_local_files(lora: Lora, local_lora: LocalPath, local_mask: LocalPath) -> Lora:
    region = lora.region
    if region is not None and region.mask_uri is not None:
        region = replace(region, mask_uri=local_mask(region.mask_uri))
    return replace(lora, uri=local_lora(lora.uri), region=region)
