"""``dino_apart``: whether an image holds every LoRA's subject by itself, somewhere.

Two subjects that each look half like the other are like both references, so the scores of a whole
image (``clora_core.dino``) cannot tell them from the two subjects. Here every LoRA gets a window of
its own, all of them disjoint. A window counts as much as it is like the LoRA's references, less a
share of how much it is like those of the nearest other LoRA: that is what a blend cannot have. Of
all ways to place the windows the best one counts, and of its windows the worst.
"""

import numpy as np
from jaxtyping import Bool, Float

MAX_LORAS = 4
"""Most LoRAs that get a score. Windows for more would show too little of a subject to know it by,
and placing them exactly takes longer with each LoRA.
"""

RIVAL_SHARE = 0.5
"""Lambda: what a window loses for each unit of likeness to another LoRA's references."""


def apart_score(
    similarities: Float[np.ndarray, "window lora"],
    disjoint: Bool[np.ndarray, "window window"],
    *,
    rival_share: float = RIVAL_SHARE,
) -> float | None:
    """Return the best that disjoint windows, one a LoRA, reach in their worst LoRA.

    With one LoRA there is no rival, and the score is the likeness of its best window.

    Args:
        similarities: Mean cosine of each window to each LoRA's references.
        disjoint: Which windows have no pixel in common; from ``windows.disjoint``.
        rival_share: Lambda, in units of similarity.

    Returns:
        The score; None if there are no LoRAs, more than ``MAX_LORAS`` or too few disjoint windows.
    """
    num_loras = similarities.shape[1]
    if not 1 <= num_loras <= MAX_LORAS:
        return None
    best = _best(own_less_rivals(similarities, rival_share), disjoint)
    return None if best == -np.inf else best


def own_less_rivals(
    similarities: Float[np.ndarray, "window lora"], rival_share: float
) -> Float[np.ndarray, "window lora"]:
    """Return what each window is worth to each LoRA."""
    num_loras = similarities.shape[1]
    if num_loras == 1:
        return similarities
    rivals = [np.delete(similarities, lora, axis=1).max(axis=1) for lora in range(num_loras)]
    return similarities - rival_share * np.stack(rivals, axis=1)


def _best(
    values: Float[np.ndarray, "window lora"], disjoint: Bool[np.ndarray, "window window"]
) -> float:
    """Return the highest minimum of one value a LoRA from disjoint windows; -inf for none.

    Branch and bound, so exact: LoRA by LoRA the best window first, and no branch whose windows so
    far are no better than the best placing so far.
    """
    last = values.shape[1] - 1

    def search(
        lora: int, is_free: Bool[np.ndarray, " window"], reached: float, best: float
    ) -> float:
        left = np.where(is_free, values[:, lora], -np.inf)
        if lora == last:
            return max(best, min(reached, float(left.max())))
        for window in np.argsort(-left):
            reached_here = min(reached, float(left[window]))
            if reached_here <= best:
                break
            best = search(lora + 1, is_free & disjoint[window], reached_here, best)
        return best

    return search(0, np.ones(len(values), bool), np.inf, -np.inf)
