"""Method ``w-switch``: LoRA Switch with turns as long as the concepts weigh (arXiv 2606.03792).

As ``switch``, but a concept's turn is the longer, the more the prompt's text embedding changes when
the concept's words are left out of it. The last steps are the first LoRA's.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from clora_core.recipe.methods import switch
from clora_core.recipe.methods.method import Mix

STEPS_PER_LAST = 20
"""One step of so many is among the last, which are the first LoRA's: 5 of the published 100."""


def active_concept(step: int, mix: Mix) -> int:
    """Return which concept's LoRA is active at ``step``."""
    config = mix.config
    at = switch.scheduled(step, mix)
    if at >= config.num_steps - num_last_steps(config.num_steps):
        return 0
    ends = list(accumulate(turn_lengths(mix.importance, config.switch_every)))
    return bisect_right(ends, at % ends[-1])


def turn_lengths(importance: Sequence[float], longest: int) -> tuple[int, ...]:
    """Return the steps of each concept's turn: ``longest`` for the heaviest, 1 at least."""
    heaviest = max(importance)
    return tuple(max(1, round(longest * weight / heaviest)) for weight in importance)


def num_last_steps(num_steps: int) -> int:
    """Return how many steps at the end are the first LoRA's: a twentieth, rounded up."""
    return -(-num_steps // STEPS_PER_LAST)


METHOD = replace(
    switch.METHOD, name="w-switch", active_concept=active_concept, importance="ablated"
)
