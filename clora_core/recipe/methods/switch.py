"""Method ``switch``: one active concept LoRA at a time, in turn (LoRA Switch, arXiv 2402.16843).

The text is encoded once, with all LoRAs active and every trigger in the prompt.
"""

from clora_core.recipe.methods.method import Method, Mix, Variant


def variants(mix: Mix) -> tuple[Variant, ...]:
    """Return the one variant, which starts with the first concept."""
    return (
        Variant(
            triggers=frozenset(range(mix.num_concepts)),
            shares=mix.only(0),
            text_shares=mix.everything(),
        ),
    )


def active_concept(step: int, mix: Mix) -> int:
    """Return which concept's LoRA is active at ``step``, by the paper's formula."""
    return scheduled(step, mix) // mix.config.switch_every % mix.num_concepts


def scheduled(step: int, mix: Mix) -> int:
    """Return the step of the schedule that ``step`` follows, counted from 0.

    The released callback switches after a step instead of before it, so there the schedule is one
    step late and the first LoRA has one step more.
    """
    return max(step - 1, 0) if mix.config.switch_as_published else step


METHOD = Method(
    name="switch", make_variants=variants, min_concepts=1, active_concept=active_concept
)
