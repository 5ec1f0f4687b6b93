"""What a method says to the sampler, and the shares that most methods are made of.

A share is what a variant takes of the weight that the row gives a LoRA. Shares are per LoRA of the
row, in the row's order, concepts and styles alike; they depend on the LoRAs' kinds and the settings
alone, so what a row costs and whether it can be made is known without one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import CompositionError
from clora_core.recipe.row import LoraKind

Shares = tuple[float, ...]


@dataclass(frozen=True)
class Mix:
    """What a method combines: LoRAs of these kinds, in the row's order, under these settings."""

    kinds: Sequence[LoraKind]
    config: SamplerConfig

    @property
    def num_concepts(self) -> int:
        """LoRAs that stand for a subject."""
        return self.kinds.count("concept")

    def everything(self) -> Shares:
        """Return every LoRA whole, concepts divided by their number if the settings say so."""
        num_parts = self.num_concepts if self.config.merge_weights == "mean" else 1
        return tuple(1 / num_parts if kind == "concept" else 1.0 for kind in self.kinds)

    def only(self, concept: int | None) -> Shares:
        """Return one concept's LoRA (or none) and every style whole."""
        places = [place for place, kind in enumerate(self.kinds) if kind == "concept"]
        chosen = None if concept is None else places[concept]
        return tuple(
            1.0 if kind == "style" or place == chosen else 0.0
            for place, kind in enumerate(self.kinds)
        )


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One prompt of a row and the LoRAs it runs with.

    Attributes:
        triggers: Concepts (by index among the row's concepts) whose trigger is in the prompt.
        shares: Of the LoRA weights in the UNet.
        text_shares: Of the LoRA weights in the text encoder.
        concept: The concept this variant is for and whose mask it gets; None for the base variant.
    """

    triggers: frozenset[int]
    shares: Shares
    text_shares: Shares
    concept: int | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to combine LoRAs.

    Attributes:
        name: As rows give it.
        make_variants: The variants of a row with such LoRAs; as many for every row with as many
            concepts.
        needs_loras: A row without LoRAs is a mistake.
        min_concepts: Fewest concept LoRAs of a row.
        max_concepts: Most; None for no limit.
        active_concept: Takes step, number of concepts and settings: the concept whose LoRA is
            active in the UNet then, beside the styles. None for every variant's own.
        guided: The contrastive loss moves the latents.
        masked: Predictions are blended by attention masks; otherwise by their mean.
    """

    name: str
    make_variants: Callable[[Mix], tuple[Variant, ...]]
    needs_loras: bool = True
    min_concepts: int = 0
    max_concepts: int | None = None
    active_concept: Callable[[int, int, SamplerConfig], int] | None = None
    guided: bool = False
    masked: bool = False

    @property
    def takes_regions(self) -> bool:
        """Whether masks can keep a LoRA in its region, or there is no LoRA to keep."""
        return self.masked or not self.needs_loras

    def variants(self, mix: Mix) -> tuple[Variant, ...]:
        """Return the variants of a row with such LoRAs.

        Raises:
            CompositionError: The method cannot make such a row.
        """
        found, fewest = mix.num_concepts, self.min_concepts
        if found < fewest or (self.max_concepts is not None and found > self.max_concepts):
            most = self.max_concepts
            wanted = f"{fewest} or more" if most is None else f"{fewest} to {most}"
            wanted = str(fewest) if fewest == most else wanted
            raise CompositionError(
                f"method {self.name!r} needs {wanted} concept LoRA(s), the row has {found}"
            )
        return self.make_variants(mix)

    def shares_at(self, step: int, variants: Sequence[Variant], mix: Mix) -> tuple[Shares, ...]:
        """Return every variant's shares in the UNet at ``step``."""
        if self.active_concept is None:
            return tuple(variant.shares for variant in variants)
        active = self.active_concept(step, mix.num_concepts, mix.config)
        return (mix.only(active),) * len(variants)
