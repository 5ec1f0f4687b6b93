"""Attention that is taught where to look.

At this scale a noun's attention does not find its subject by itself. So every cross-attention
layer at 16×16 is supervised, each on its own (with only their average supervised one layer of
three learnt it): the attention of a noun or trigger must lie over its subject and cover all of it.
The idea is TokenCompose's (arXiv 2312.03626), the loss another, see ``grounding_loss``.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

MAP_POSITIONS = 256
"""Positions of the finest maps on a square picture; a wide one has more, a coarse map fewer."""


class AttentionRecorder:
    """Makes a UNet's 16×16 cross-attention explicit and keeps its maps, until closed.

    Attributes:
        maps: Of the last forward, one [batch, position, token] per layer, mean over heads.
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
        if query.shape[2] >= MAP_POSITIONS:
            shares = (query @ key.transpose(-1, -2) * attn.scale).float().softmax(-1)
            self._recorder.maps.append(shares.mean(1))
            mixed = shares.to(value.dtype) @ value
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def subject_spread(masks: Tensor) -> Tensor:
    """Return how attention should lie over a subject: its cover, blurred by one cell.

    Args:
        masks: Cover of each subject, uint8 [batch, subject, 16, cells].

    Returns:
        Shares that sum to one for a subject that is there, float [batch, subject, position].
    """
    blurred = functional.avg_pool2d(masks.float(), 3, stride=1, padding=1).flatten(2)
    return blurred / blurred.sum(-1, keepdim=True).clamp(min=1)


def grounding_loss(maps: list[Tensor], masks: Tensor, token_subjects: Tensor) -> Tensor:
    """Return how far the attention of nouns and triggers is from the spread over their subjects.

    The mean over layers and grounded tokens of the divergence KL(spread || map), in nats. Being a
    proper score it has no reward for guessing: in pure noise its best map is every place where the
    subject may be. The share of attention that misses the subject, which was taught before, is
    best served there by one spike between two subjects, and masks made of a spike lose concepts.

    Args:
        maps: One [batch, position, token] per layer.
        masks: Cover of each subject, uint8 [batch, subject, 16, cells].
        token_subjects: Subject of each token counted from 1, or 0, [batch, token].
    """
    spread = subject_spread(masks)
    chosen = _tokens_of(spread, token_subjects)
    certain = torch.special.entr(spread).sum(-1, keepdim=True)
    total = spread.new_zeros(())
    for attention in maps:
        places = attention / attention.sum(1, keepdim=True).clamp(min=1e-8)
        surprise = -torch.einsum("bsp,bpt->bst", spread, (places + 1e-6).log())
        total = total + (chosen * (surprise - certain)).sum() / chosen.sum().clamp(min=1)
    return total / len(maps)


@torch.no_grad()
def share_inside(maps: list[Tensor], masks: Tensor, token_subjects: Tensor) -> float:
    """Return the mean share of a grounded token's attention on its subject or one cell beside."""
    inside = (subject_spread(masks) > 0).float()
    chosen = _tokens_of(inside, token_subjects)
    shares = [
        (torch.einsum("bsp,bpt->bst", inside, m / m.sum(1, keepdim=True)) * chosen).sum()
        / chosen.sum().clamp(min=1)
        for m in maps
    ]
    return float(torch.stack(shares).mean())


def _tokens_of(spread: Tensor, token_subjects: Tensor) -> Tensor:
    """Return one where a token belongs to a subject, zero elsewhere, [batch, subject, token]."""
    numbers = torch.arange(1, spread.shape[1] + 1, device=spread.device)
    return (token_subjects[:, None, :] == numbers[None, :, None]).float()
