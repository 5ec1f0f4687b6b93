"""Cross-attention to several texts at once, each where its mask holds.

A gated lane reads one text for each of its parts: at every position the layer's output is the
masks' mean of what each text alone would give. With one part everywhere that is the part's own
attention. Keys and values do not change over the steps, so they are computed once.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from clora_core.diffusion.attention import MapCapture, cross_attentions
from clora_core.lora.gate import Gate


@dataclass(eq=False)
class TextContexts:
    """Keys and values of every lane's texts, and which lanes the next pass has.

    Attributes:
        keys: By cross-attention.
        values: Likewise.
        bias: Added to every layer's scores before the softmax; None for nothing.
    """

    keys: Mapping[str, Float[Tensor, "lane part token _"]]
    values: Mapping[str, Float[Tensor, "lane part token _"]]
    bias: Float[Tensor, "lane part token"] | None = None
    gate: Gate | None = field(default=None, init=False)
    _lanes: Int[Tensor, " chosen"] | None = field(default=None, init=False)

    @classmethod
    def project(
        cls,
        unet: nn.Module,
        text: Float[Tensor, "lane_part token channel"],
        num_parts: int,
        bias: Float[Tensor, "lane part token"] | None,
    ) -> "TextContexts":
        """Return the keys and values of ``text``, with whatever LoRAs are on the layers now."""
        with torch.no_grad():
            keys = {name: attn.to_k(text) for name, attn in cross_attentions(unet)}
            values = {name: attn.to_v(text) for name, attn in cross_attentions(unet)}
        split = (-1, num_parts)
        return cls(
            {name: key.unflatten(0, split) for name, key in keys.items()},
            {name: value.unflatten(0, split) for name, value in values.items()},
            bias,
        )

    def use(self, gate: Gate, lanes: Int[Tensor, " chosen"]) -> None:
        """Set the gate of the next pass, and which of the lanes it has, in order."""
        self.gate, self._lanes = gate, lanes

    def take(
        self, layer: str
    ) -> tuple[
        Float[Tensor, "chosen part token _"],
        Float[Tensor, "chosen part token _"],
        Float[Tensor, "chosen part token"] | None,
    ]:
        """Return keys, values and bias of the next pass's lanes at one layer."""
        if self._lanes is None:
            raise RuntimeError("TextContexts.use() was not called before the pass")
        bias = None if self.bias is None else self.bias[self._lanes]
        return self.keys[layer][self._lanes], self.values[layer][self._lanes], bias

    def masks_at(self, num_positions: int) -> Float[Tensor, "chosen part position"]:
        """Return the gate's masks at a layer with this many positions."""
        if self.gate is None:
            raise RuntimeError("TextContexts.use() was not called before the pass")
        size = self.gate.size_of(num_positions)
        return self.gate.masks_at(*size).flatten(start_dim=2)


class ContextProcessor:
    """One cross-attention's processor; with ``capture`` its probabilities are read as maps."""

    def __init__(self, layer: str, contexts: TextContexts, capture: MapCapture | None) -> None:
        self._layer = layer
        self._contexts = contexts
        self._capture = capture

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "lane position channel"],
        encoder_hidden_states: Float[Tensor, "..."] | None = None,  # noqa: ARG002 - all processors'
        attention_mask: Float[Tensor, "..."] | None = None,  # noqa: ARG002
        temb: Float[Tensor, "lane time_channel"] | None = None,  # noqa: ARG002
    ) -> Float[Tensor, "lane position channel"]:
        """Return the layer's output, as every processor of diffusers does."""
        keys, values, bias = self._contexts.take(self._layer)
        query = _split(attn.to_q(hidden_states)[:, None], attn.heads)  # one for all parts
        key, value = _split(keys, attn.heads), _split(values, attn.heads)
        added = None if bias is None else bias[:, :, None, None]  # [lane, part, 1, 1, token]
        masks = self._contexts.masks_at(hidden_states.shape[1])
        masks = masks[:, :, None, :, None].to(query.dtype)  # [lane, part, 1, position, 1]
        if self._capture is not None:
            mixed = (self._explicit(attn, query, key, value, added) * masks).sum(dim=1)
        else:
            # Part by part, so that memory does not grow with their number.
            mixed = torch.zeros_like(query[:, 0])  # [lane, head, position, channel]
            for part in range(key.shape[1]):
                mask = None if added is None else added[:, part].to(query.dtype)
                attended = functional.scaled_dot_product_attention(
                    query[:, 0], key[:, part], value[:, part], attn_mask=mask, scale=attn.scale
                )
                mixed = mixed + attended * masks[:, part]
        output = mixed.transpose(1, 2).flatten(start_dim=2)
        for layer in attn.to_out:
            output = layer(output)
        return output / attn.rescale_output_factor

    def _explicit(
        self,
        attn: Any,
        query: Float[Tensor, "lane 1 head position channel"],
        key: Float[Tensor, "lane part head token channel"],
        value: Float[Tensor, "lane part head token channel"],
        added: Float[Tensor, "lane part 1 1 token"] | None,
    ) -> Float[Tensor, "lane part head position channel"]:
        if self._capture is None:
            raise RuntimeError("explicit attention without a capture")
        if attn.upcast_attention:  # Stable Diffusion 2's scores overflow in half precision
            query, key = query.float(), key.float()
        scores = (query * attn.scale) @ key.mT
        if added is not None:
            scores = scores + added.to(scores.dtype)
        probabilities = scores.to(self._capture.dtype).softmax(dim=-1)
        self._capture.add(probabilities.mean(dim=2))  # [lane, part, position, token]
        return probabilities.to(value.dtype) @ value


@contextmanager
def gated_attention(
    unet: nn.Module,
    contexts: TextContexts,
    capture: MapCapture | None,
    map_layers: tuple[str, ...],
) -> Generator[None]:
    """Read ``contexts`` in all cross-attentions inside the block; outside all is as before."""
    attentions: list[tuple[str, Any]] = cross_attentions(unet)
    originals = [attn.processor for _, attn in attentions]
    try:
        for name, attn in attentions:
            reads_maps = capture if name in map_layers else None
            attn.processor = ContextProcessor(name, contexts, reads_maps)
        yield
    finally:
        for (_, attn), original in zip(attentions, originals, strict=True):
            attn.processor = original


def _split(
    states: Float[Tensor, "lane part length channels"], num_heads: int
) -> Float[Tensor, "lane part {num_heads} length channel"]:
    return states.unflatten(-1, (num_heads, -1)).transpose(2, 3)
