"""What a method says to the sampler, and the weights that most methods are made of.

Weights are per LoRA of the row, in the row's order, concepts and styles alike.
"""

from collections.abc import Callable
from dataclasses import dataclass

from clora_core.config import SamplerConfig
from clora_core.errors import CompositionError
from clora_core.rows import ComposeRow

Weights = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One prompt of a row and the LoRAs it runs with.

    Attributes:
        triggers: Concepts (by index among the row's concepts) whose trigger is in the prompt.
        weights: LoRA weights in the UNet.
        text_weights: LoRA weights in the text encoder.
        concept: The concept this variant is for and whose mask it gets; None for the base variant.
    """

    triggers: frozenset[int]
    weights: Weights
    text_weights: Weights
    concept: int | None = None


def constant_weights(
    row: ComposeRow,  # noqa: ARG001 - the signature of every schedule
    variants: tuple[Variant, ...],
    step: int,  # noqa: ARG001
    config: SamplerConfig,  # noqa: ARG001
) -> tuple[Weights, ...]:
    """Return each variant's own weights at every step."""
    return tuple(variant.weights for variant in variants)


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to combine LoRAs.

    Attributes:
        variants: The variants of a row, which must be as many for every row with as many concepts.
            Raises ``CompositionError`` for a row that the method cannot make.
        weights_at: The variants' UNet weights at a step.
        guided: The contrastive loss moves the latents.
        masked: Predictions are blended by attention masks; otherwise by their mean.
    """

    variants: Callable[[ComposeRow], tuple[Variant, ...]]
    weights_at: Callable[
        [ComposeRow, tuple[Variant, ...], int, SamplerConfig], tuple[Weights, ...]
    ] = constant_weights
    guided: bool = False
    masked: bool = False


def all_weights(row: ComposeRow) -> Weights:
    """Return every LoRA with its weight, concepts divided by their number if the row says so."""
    share = len(row.concepts) if row.sampler.merge_weights == "mean" else 1
    return tuple(
        lora.weight / share if lora.kind == "concept" else lora.weight for lora in row.loras
    )


def only(row: ComposeRow, concept: int | None) -> Weights:
    """Return one concept's LoRA (or none) and every style with their weights."""
    chosen = None if concept is None else row.concepts[concept]
    return tuple(
        lora.weight if lora.kind == "style" or lora is chosen else 0.0 for lora in row.loras
    )


def need_concepts(row: ComposeRow, *, at_least: int, at_most: int | None = None) -> int:
    """Return the number of the row's concepts, or refuse the row."""
    found = len(row.concepts)
    if found < at_least or (at_most is not None and found > at_most):
        wanted = str(at_least) if at_most == at_least else f"{at_least} or more"
        raise CompositionError(
            f"method {row.method!r} needs {wanted} concept LoRA(s), the row has {found}"
        )
    return found
