"""Method ``switch``: one active concept LoRA at a time, in turn (LoRA Switch, arXiv 2402.16843).

The text is encoded once, with all LoRAs active and every trigger in the prompt.
"""

from clora_core.config import SamplerConfig
from clora_core.methods.method import Method, Variant, Weights, all_weights, need_concepts, only
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    num_concepts = need_concepts(row, at_least=1)
    return (
        Variant(
            triggers=frozenset(range(num_concepts)),
            weights=only(row, 0),
            text_weights=all_weights(row),
        ),
    )


def _weights_at(
    row: ComposeRow,
    variants: tuple[Variant, ...],  # noqa: ARG001 - the signature of every schedule
    step: int,
    config: SamplerConfig,
) -> tuple[Weights, ...]:
    return (only(row, active_concept(step, len(row.concepts), config)),)


def active_concept(step: int, num_concepts: int, config: SamplerConfig) -> int:
    """Return which concept's LoRA is active at ``step``.

    The paper's formula, counted from 0; the released callback switches after a step instead of
    before it, so that the first LoRA has one step more.
    """
    shifted = max(step - 1, 0) if config.switch_as_published else step
    return shifted // config.switch_every % num_concepts


METHOD = Method(variants=_variants, weights_at=_weights_at)
