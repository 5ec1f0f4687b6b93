"""The ``testbed`` block of a sweep: a published list of LoRAs and prompts, in a copy of your own.

The lists are other people's and none is shipped; a sweep names the file and the folder of LoRAs.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from manifests.text.text_rules import AnyText, ShortText

_OF_COMPOSLORA = ("sizes", "prefix", "styles")
_OF_CUSTOMCONCEPT101 = ("trigger", "triggers")


class PublishedTestbed(BaseModel):
    """Which list, and what the list leaves open.

    Attributes:
        composlora: The testbed of LoRA Switch and LoRA Composite (arXiv 2402.16843): one of its two
            ``*_lora_info.json``.
        customconcept101: The lists of Custom Diffusion (arXiv 2212.04488): ``dataset.json`` or
            ``dataset_multiconcept.json``, with its prompt files beside it.
        loras: Folder of the LoRA files, each called by its id and ``.safetensors``.
        weight: Of every LoRA, in its rows; the catalog's own, 1, if not given.
        subjects: Other nouns than the list's, by id.
        skip_unfit: Leave out, and name, prompts of the list that rows cannot have: a concept has no
            noun there, or its noun stands elsewhere before its place.
        sizes: ComposLoRA: how many LoRAs a composition has.
        prefix: ComposLoRA: what every prompt begins with; required, and may be empty.
        styles: ComposLoRA: groups whose LoRAs act on the whole image (``kind: style``). Without it
            each is one of the LoRAs that take turns or a pass of their own, as published.
        trigger: CustomConcept101: what every LoRA was trained to be called by.
        triggers: CustomConcept101: the same by id, before ``trigger``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    composlora: ShortText | None = None
    customconcept101: ShortText | None = None
    loras: ShortText
    weight: Annotated[float | None, Field(ge=-10.0, le=10.0, allow_inf_nan=False)] = None
    subjects: Mapping[str, ShortText] = Field(default_factory=dict[str, str])
    skip_unfit: bool = False
    sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1)] = (
        2,
        3,
        4,
        5,
    )
    prefix: AnyText | None = None
    styles: tuple[str, ...] = ()
    trigger: ShortText | None = None
    triggers: Mapping[str, ShortText] = Field(default_factory=dict[str, str])

    @property
    def file(self) -> str:
        """The list, as the sweep names it."""
        return self.composlora or self.customconcept101 or ""

    @model_validator(mode="after")
    def _is_one_list_with_its_own_settings(self) -> Self:
        if (self.composlora is None) == (self.customconcept101 is None):
            raise ValueError("should name one list, composlora or customconcept101")
        others = _OF_CUSTOMCONCEPT101 if self.composlora else _OF_COMPOSLORA
        stray = [name for name in others if name in self.model_fields_set]
        if stray:
            kind = "composlora" if self.composlora else "customconcept101"
            raise ValueError(f"has {', '.join(stray)}, which {kind} does not know; take it out")
        if self.composlora is not None and self.prefix is None:
            raise ValueError(
                "needs prefix, what every prompt begins with (the published code's get_prompt has "
                "it); write prefix: '' for none"
            )
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError(f"names a size twice in sizes ({list(self.sizes)}); name each once")
        return self
