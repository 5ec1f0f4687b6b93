"""Attention written out in every layer, with the probabilities kept.

No fused kernels, no early exit, no choice of layers before the run: everything is stored, and what
the maps need is picked afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ExplicitAttention:
    """softmax(Q K^T scale) V of one layer; leaves cross-attention's probabilities in ``store``."""

    def __init__(self, name: str, store: dict[str, Tensor]) -> None:
        self.name = name
        self.store = store

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        if attn.group_norm is not None or attn.norm_cross or attn.residual_connection:
            raise NotImplementedError(f"{self.name} is no plain attention layer")
        if attention_mask is not None:
            raise NotImplementedError(f"{self.name} got an attention mask")
        is_cross = encoder_hidden_states is not None
        context = encoder_hidden_states if is_cross else hidden_states
        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        key = _split_heads(attn.to_k(context), attn.heads)
        value = _split_heads(attn.to_v(context), attn.heads)
        probabilities = torch.softmax((query * attn.scale) @ key.transpose(-1, -2), dim=-1)
        if is_cross:
            self.store[self.name] = probabilities  # [batch, head, position, token]
        mixed = (probabilities @ value).transpose(1, 2).flatten(start_dim=2)
        return attn.to_out[1](attn.to_out[0](mixed))


def _split_heads(states: Tensor, num_heads: int) -> Tensor:
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


@contextmanager
def stored_attention(unet: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Write attention out in all layers; the dict holds the last pass's probabilities."""
    store: dict[str, Tensor] = {}
    originals = dict(unet.attn_processors)
    unet.set_attn_processor({name: ExplicitAttention(name, store) for name in originals})
    try:
        yield store
    finally:
        unet.set_attn_processor(originals)


def map_layers(unet: nn.Module, map_size: int | None = None) -> tuple[list[str], int]:
    """Return the layers whose maps count and how many latent pixels a map position is wide.

    They are the cross-attention layers with the fewest queries that are 16 or more a side (or
    ``map_size`` a side) when the latents have the model's own size.
    """
    config = unet.config
    side = config.sample_size
    parameter = next(unet.parameters())
    added = None
    if config.addition_embed_type == "text_time":
        added_dim = config.projection_class_embeddings_input_dim
        pooled_dim = added_dim - 6 * config.addition_time_embed_dim
        added = {
            "text_embeds": parameter.new_zeros(1, pooled_dim),
            "time_ids": parameter.new_zeros(1, 6),
        }
    with torch.no_grad(), stored_attention(unet) as store:
        unet(
            parameter.new_zeros(1, config.in_channels, side, side),
            1,
            encoder_hidden_states=parameter.new_zeros(1, 77, config.cross_attention_dim),
            added_cond_kwargs=added,
        )
        sides = {name: round(maps.shape[2] ** 0.5) for name, maps in store.items()}
    wanted = map_size or min(found for found in sides.values() if found >= 16)
    layers = [name for name, found in sides.items() if found == wanted]
    if not layers:
        raise ValueError(f"no cross-attention of {wanted} a side; there are {set(sides.values())}")
    return layers, side // wanted


def mean_map(
    store: dict[str, Tensor], layers: list[str], *, height: int, width: int, half: str
) -> Tensor:
    """Return one image's maps [height, width, token]: the mean over heads, then over layers.

    Args:
        store: What the last pass left; the unconditional half first, if there are two.
        layers: The layers that count.
        height: Of the maps, in positions.
        width: Of the maps, in positions.
        half: ``cond`` takes the conditional half alone, ``both`` the mean of all there are.
    """
    total: Tensor | float = 0.0
    for name in layers:
        probabilities = store[name]
        halves = probabilities[-1:] if half == "cond" else probabilities
        total = total + halves.mean(dim=(0, 1))
    return (total / len(layers)).unflatten(0, (height, width))
