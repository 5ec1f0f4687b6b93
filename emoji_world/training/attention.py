"""Attention that is taught where to look.

At this scale a noun's attention does not find its subject by itself. So every cross-attention
layer at 16×16 is supervised, each on its own (with only their average supervised one layer of
three learnt it): the attention mass of a noun or trigger must lie inside its subject, as in
TokenCompose (arXiv 2312.03626), and cover all of it, densest in the middle.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "AttentionRecorder",
    "grounding_loss",
    "share_inside",
    "subject_spread",
    "subject_targets",
]

MAP_POSITIONS = 256


class AttentionRecorder:
    """Makes a UNet's 16×16 cross-attention explicit and keeps its maps, until closed.

    Attributes:
        maps: Of the last forward, one [batch, 256, token] per layer, mean over heads.
    """

    def __init__(self, unet: nn.Module) -> None:
        """Replace the processors of cross-attention layers; the others stay."""
        self.maps: list[Tensor] = []
        self._replaced = [
            (module, module.processor)
            for name, module in unet.named_modules()
            if name.endswith("attn2") and isinstance(module, Attention)
        ]
        processor: Any = _ExplicitProcessor(self)
        for module, _ in self._replaced:
            module.set_processor(processor)

    def close(self) -> None:
        """Put the original processors back."""
        for module, processor in self._replaced:
            module.set_processor(processor)


class _ExplicitProcessor:
    def __init__(self, recorder: AttentionRecorder) -> None:
        self._recorder = recorder

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: object
    ) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        key = heads(attn.to_k(encoder_hidden_states))
        value = heads(attn.to_v(encoder_hidden_states))
        if query.shape[2] == MAP_POSITIONS:
            shares = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)
            self._recorder.maps.append(shares.mean(1))
            mixed = shares.to(value.dtype) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def subject_targets(masks: Tensor) -> Tensor:
    """Return where attention may go: the subject's cells and their neighbours.

    Args:
        masks: Cover of each subject, uint8 [batch, subject, 16, 16].

    Returns:
        Zeros and ones, float [batch, subject, 256].
    """
    covered = (masks > 12).float()
    return functional.max_pool2d(covered, 3, stride=1, padding=1).flatten(2)


def subject_spread(masks: Tensor) -> Tensor:
    """Return how attention should lie over a subject: its cover, blurred by one cell.

    Blurred, the peak is inside the subject and falls off over its rim. Spread evenly over
    ``subject_targets``, as it was taught at first, the peak was on the rim as often as not.

    Args:
        masks: Cover of each subject, uint8 [batch, subject, 16, 16].

    Returns:
        Shares that sum to one for a subject that is there, float [batch, subject, 256].
    """
    blurred = functional.avg_pool2d(masks.float(), 3, stride=1, padding=1).flatten(2)
    return blurred / blurred.sum(-1, keepdim=True).clamp(min=1)


def grounding_loss(maps: list[Tensor], masks: Tensor, token_subjects: Tensor) -> Tensor:
    """Return how much attention of nouns and triggers leaves its subject, or leaves it bare.

    The mean over layers and grounded tokens of ``(1 - share inside)²`` plus a tenth of the
    cross-entropy between the wanted spread over the subject and the map.

    Args:
        maps: One [batch, 256, token] per layer.
        masks: Cover of each subject, uint8 [batch, subject, 16, 16].
        token_subjects: Subject of each token counted from 1, or 0, [batch, token].
    """
    targets, spread = subject_targets(masks), subject_spread(masks)
    numbers = torch.arange(1, targets.shape[1] + 1, device=targets.device)
    chosen = (token_subjects[:, None, :] == numbers[None, :, None]).float()
    count = chosen.sum().clamp(min=1)
    total = targets.new_zeros(())
    for attention in maps:
        places = attention / attention.sum(1, keepdim=True).clamp(min=1e-8)
        inside = torch.einsum("bsp,bpt->bst", targets, places)
        surprise = -torch.einsum("bsp,bpt->bst", spread, (places + 1e-6).log())
        total = total + (chosen * ((1 - inside) ** 2 + 0.1 * surprise)).sum() / count
    return total / len(maps)


@torch.no_grad()
def share_inside(maps: list[Tensor], masks: Tensor, token_subjects: Tensor) -> float:
    """Return the mean share of a grounded token's attention inside its subject."""
    targets = subject_targets(masks)
    numbers = torch.arange(1, targets.shape[1] + 1, device=targets.device)
    chosen = (token_subjects[:, None, :] == numbers[None, :, None]).float()
    shares = [
        (torch.einsum("bsp,bpt->bst", targets, m / m.sum(1, keepdim=True)) * chosen).sum()
        / chosen.sum().clamp(min=1)
        for m in maps
    ]
    return float(torch.stack(shares).mean())
