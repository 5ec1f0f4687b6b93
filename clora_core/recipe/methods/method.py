"""What a method says to the sampler, and the shares that most methods are made of.

A share is what a variant takes of the weight that the row gives a LoRA. Shares are per LoRA of the
row, in the row's order, concepts and styles alike; they depend on the LoRAs' kinds and the settings
alone, so what a row costs and whether it can be made is known without one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import CompositionError
from clora_core.recipe.methods.gate import GateRecipe
from clora_core.recipe.row import LoraKind, Row

Shares = tuple[float, ...]
Importance = Literal["ablated", "triggers"]


@dataclass(frozen=True)
class Mix:
    """What a method combines.

    Attributes:
        kinds: Kind of each LoRA, in the row's order.
        config: The row's settings.
        placed: Concepts (by index among the row's concepts) that have a region.
        importance: How much each concept weighs by its words, adding up to 1; empty where the
            method does not ask, or before the text encoder was.
    """

    kinds: Sequence[LoraKind]
    config: SamplerConfig
    placed: frozenset[int] = frozenset()
    importance: tuple[float, ...] = ()

    @classmethod
    def of(cls, row: Row) -> "Mix":
        """Return what a method combines in ``row``."""
        placed = (index for index, lora in enumerate(row.concepts) if lora.region is not None)
        return cls(row.kinds, row.sampler, frozenset(placed))

    @property
    def num_concepts(self) -> int:
        """LoRAs that stand for a subject."""
        return self.kinds.count("concept")

    def everything(self) -> Shares:
        """Return every LoRA whole, concepts divided by their number if the settings say so."""
        return self.merged(frozenset(range(self.num_concepts)))

    def only(self, concept: int | None) -> Shares:
        """Return one concept's LoRA (or none) and every style whole."""
        return self.merged(frozenset() if concept is None else frozenset({concept}))

    def merged(self, concepts: frozenset[int]) -> Shares:
        """Return some concepts' LoRAs and every style, merged as the settings say."""
        by_mean = self.config.merge_weights == "mean" and len(concepts) > 1
        share = 1 / len(concepts) if by_mean else 1.0
        places = [place for place, kind in enumerate(self.kinds) if kind == "concept"]
        chosen = {places[concept] for concept in concepts}
        return tuple(
            1.0 if kind == "style" else share if place in chosen else 0.0
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
        context_shares: Of a gated method, the shares of the layers that read the text or that the
            gate leaves alone, where they are not ``shares``.
    """

    triggers: frozenset[int]
    shares: Shares
    text_shares: Shares
    concept: int | None = None
    context_shares: Shares | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to combine LoRAs.

    Attributes:
        name: As rows give it.
        make_variants: The variants of a row with such LoRAs; as many for every row with as many
            concepts, and for a gated method as many concepts with regions.
        needs_loras: A row without LoRAs is a mistake.
        min_concepts: Fewest concept LoRAs of a row.
        max_concepts: Most; None for no limit.
        num_styles: Style LoRAs of a row; None for any number.
        active_concept: Takes step and mix: the concept whose LoRA is active in the UNet then,
            beside the styles. None for every variant's own.
        importance: How the text encoder weighs the concepts' words: by what leaving them out
            changes (``ablated``) or by their own likeness to the prompt (``triggers``). None
            where the method does not ask.
        weighted: Predictions are blended by the importance of the concepts, one variant each.
        layer_scale: Takes step and settings: each attention projection of the UNet runs with the
            concept's LoRA alone if that counts at least this many times as much there as the
            style's, else with the style's alone. None for layers that are all alike.
        guided: The contrastive loss moves the latents.
        masked: Predictions are blended by attention masks; otherwise by their mean.
        make_gate: A gated method's rules: its variants share one lane, whose LoRAs and texts act
            where their masks are. None where every variant has a lane of its own.
        fused_by: Settings that decide the fused adapter which the method samples with in place of
            the row's concept LoRAs, see ``recipe.fusion``; None for methods that fuse nothing. Its
            variants' shares are of that adapter and the styles, in this order.
    """

    name: str
    make_variants: Callable[[Mix], tuple[Variant, ...]]
    needs_loras: bool = True
    min_concepts: int = 0
    max_concepts: int | None = None
    num_styles: int | None = None
    active_concept: Callable[[int, Mix], int] | None = None
    importance: Importance | None = None
    weighted: bool = False
    layer_scale: Callable[[int, SamplerConfig], float] | None = None
    guided: bool = False
    masked: bool = False
    make_gate: Callable[[SamplerConfig], GateRecipe] | None = None
    fused_by: tuple[str, ...] | None = None

    @property
    def takes_regions(self) -> bool:
        """Whether masks can keep a LoRA in its region, or there is no LoRA to keep."""
        return self.masked or self.make_gate is not None or not self.needs_loras

    def gate(self, num_variants: int, config: SamplerConfig) -> GateRecipe | None:
        """Return the rules of a gated row; None where every variant has a lane of its own."""
        return self.make_gate(config) if self.make_gate is not None and num_variants > 1 else None

    @property
    def follows_maps(self) -> bool:
        """Whether masks follow the attention maps from step to step, at the default settings."""
        if self.make_gate is None:
            return self.masked
        return self.make_gate(SamplerConfig()).follows_maps

    def keeps_maps(self, row: Row) -> bool:
        """Whether the steps of a row have maps and masks that a report can show.

        A gated row has them while its masks follow its maps, or where the loss reads the maps of a
        row whose regions are its masks.
        """
        if self.make_gate is None:
            return self.masked
        gate, config = self.make_gate(row.sampler), row.sampler
        if not gate.follows_maps or not row.is_placed:
            return gate.follows_maps
        num_concepts = len(row.concepts)
        return any(self.num_updates(step, num_concepts, config) for step in range(config.num_steps))

    def num_updates(self, step: int, num_concepts: int, config: SamplerConfig) -> int:
        """Return how many latent updates ``step`` makes; one concept alone has no contrast."""
        if not self.guided or num_concepts < 2:
            return 0
        if self.make_gate is None:
            return config.num_updates(step)
        until = config.gate_update_until * config.num_steps
        return int(step < until and step % config.gate_update_every == 0)

    def variants(self, mix: Mix) -> tuple[Variant, ...]:
        """Return the variants of a row with such LoRAs.

        Raises:
            CompositionError: The method cannot make such a row.
        """
        found, fewest, most = mix.num_concepts, self.min_concepts, self.max_concepts
        styles = mix.kinds.count("style")
        fits = found >= fewest and (most is None or found <= most)
        if fits and self.num_styles in (None, styles):
            return self.make_variants(mix)
        wanted = f"{fewest} or more" if most is None else f"{fewest} to {most}"
        wanted = str(fewest) if fewest == most else wanted
        needs, has = f"{wanted} concept LoRA(s)", f"{found}"
        if self.num_styles is not None:
            needs, has = f"{needs} and {self.num_styles} style LoRA(s)", f"{has} and {styles}"
        raise CompositionError(f"method {self.name!r} needs {needs}, the row has {has}")

    def shares_at(self, step: int, variants: Sequence[Variant], mix: Mix) -> tuple[Shares, ...]:
        """Return every variant's shares in the UNet at ``step``."""
        if self.active_concept is None:
            return tuple(variant.shares for variant in variants)
        active = self.active_concept(step, mix)
        return (mix.only(active),) * len(variants)
