"""Method ``switch``: one active concept LoRA at a time, in turn (LoRA Switch, arXiv 2402.16843).

The text is encoded once, with all LoRAs active and every trigger in the prompt.
"""

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    return (
        Variant(
            triggers=frozenset(range(mix.num_concepts)),
            shares=mix.only(0),
            text_shares=mix.everything(),
        ),
    )


def active_concept(step: int, num_concepts: int, config: SamplerConfig) -> int:
    """Return which concept's LoRA is active at ``step``.

    The paper's formula, counted from 0; the released callback switches after a step instead of
    before it, so that the first LoRA has one step more.
    """
    shifted = max(step - 1, 0) if config.switch_as_published else step
    return shifted // config.switch_every % num_concepts


METHOD = Method(
    name="switch", make_variants=_variants, min_concepts=1, active_concept=active_concept
)
