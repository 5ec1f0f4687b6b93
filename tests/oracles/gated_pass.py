"""One gated pass written out: one lane, one guidance half, LoRA by LoRA and text by text.

peft holds the LoRA files and is switched off; each file's residual is computed from its own two
factors and added with a weight of its own at every position. Every cross-attention is computed for
every text, and the results are mixed position by position. Nothing is packed, and no text's keys
are kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from oracles.mask_loops import Grid, loop_pooled
from oracles.peft_pipeline import Conditioning
from oracles.prompts import OracleVariant
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a lane is composed of: one text with its LoRAs.

    Attributes:
        variant: The text and where the words are.
        weights: Of each LoRA where this part's mask is.
        text_weights: In the text encoders.
        context_weights: In the layers that read the text, and in those that are not gated.
    """

    variant: OracleVariant
    weights: Sequence[float]
    text_weights: Sequence[float]
    context_weights: Sequence[float]


@dataclass(kw_only=True)
class GatedPass:
    """The UNet as a gated lane sees it.

    Attributes:
        unet: With the LoRAs held by peft, all of them inactive.
        adapters: Their names, in the row's order.
        parts: What the lane is composed of.
        texts: Each part's conditions, both guidance halves.
        only_attention: Gate the layers inside transformer blocks alone.
        word_bias: For each part {token: what is added to its scores}, in the conditional half.
        feature_layer: The self-attention whose output is kept.
        maps: By layer and part the last pass's probabilities [position, token].
        features: The last pass's self-attention output [position, channel].
    """

    unet: Any
    adapters: Sequence[str]
    parts: Sequence[Part]
    texts: Sequence[Conditioning]
    only_attention: bool = False
    word_bias: Sequence[dict[int, float]] = ()
    feature_layer: str = ""
    maps: dict[str, list[Tensor]] = field(default_factory=dict)
    features: Tensor | None = None
    _half: int = 0
    _reading: int = 0
    _masks: Sequence[Grid] = ()
    _size: tuple[int, int] = (0, 0)
    _pooled: dict[tuple[int, int], list[Grid]] = field(default_factory=dict)
    _maps_of_weights: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)

    def predict(
        self, latents: Tensor, timestep: Tensor, half: int, masks: Sequence[Grid]
    ) -> Tensor:
        """Return the prediction of one half for latents as the model sees them."""
        if masks is not self._masks:
            self._pooled.clear()
            self._maps_of_weights.clear()
        self._half, self._masks = half, masks
        self.maps.clear()
        added = None
        if self.texts[0].added is not None:
            means = [_mean(mask) for mask in masks]
            pooled = [text.added["text_embeds"][half] for text in self.texts if text.added]
            embeds = sum(mean * each for mean, each in zip(means, pooled, strict=True))
            added = {"text_embeds": embeds[None], "time_ids": self.texts[0].added["time_ids"][:1]}
        states = self.texts[0].states[half : half + 1]  # only its shape is of use
        return self.unet(
            latents, timestep, encoder_hidden_states=states, added_cond_kwargs=added
        ).sample

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Gate the UNet inside the block."""
        handles = []
        for name, module in self.unet.named_modules():
            if isinstance(module, LoraLayer):
                handles.append(module.register_forward_hook(self._adding(name)))
            elif type(module).__name__ == "Transformer2DModel":
                handles.append(module.register_forward_pre_hook(self._note_size))
        originals = dict(self.unet.attn_processors)
        self.unet.set_attn_processor({name: self._attention(name) for name in originals})
        try:
            yield
        finally:
            self.unet.set_attn_processor(originals)
            for handle in handles:
                handle.remove()

    def _note_size(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._size = (args[0].shape[2], args[0].shape[3])

    # ---------------------------------------------------------------------------- LoRA residuals

    def _adding(self, name: str) -> Any:
        def add(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for number, adapter in enumerate(self.adapters):
                if adapter in layer.lora_A:
                    scale = layer.lora_alpha[adapter] / layer.r[adapter]
                    residual = layer.lora_B[adapter](layer.lora_A[adapter](args[0])) * scale
                    output = output + residual * self._weight(name, number, residual)
            return output

        return add

    def _weight(self, name: str, number: int, residual: Tensor) -> Tensor | float:
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            return self.parts[self._reading].context_weights[number]
        if self.only_attention and "transformer_blocks" not in name:
            return self.parts[0].context_weights[number]
        weights = [part.weights[number] for part in self.parts]
        if residual.dim() == 2:  # no positions: the mean over the image
            return sum(_mean(mask) * w for mask, w in zip(self._masks, weights, strict=True))
        is_image = residual.dim() == 4
        height, width = residual.shape[2:] if is_image else self._size
        key = (number, height, width)
        if key not in self._maps_of_weights:
            masks = self._masks_at(height, width)
            at = [
                [
                    sum(m[y][x] * w for m, w in zip(masks, weights, strict=True))
                    for x in range(width)
                ]
                for y in range(height)
            ]
            self._maps_of_weights[key] = residual.new_tensor(at)
        found = self._maps_of_weights[key]
        return found if is_image else found.flatten()[:, None]

    def _masks_at(self, height: int, width: int) -> list[Grid]:
        """Return the masks at a layer's size; kept while they are the same."""
        if (height, width) not in self._pooled:
            pooled = [loop_pooled(mask, height, width) for mask in self._masks]
            self._pooled[height, width] = pooled
        return self._pooled[height, width]

    # --------------------------------------------------------------------------------- attention

    def _attention(self, layer: str) -> Any:
        def attend(
            attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
        ) -> Tensor:
            query = _split_heads(attn.to_q(hidden_states), attn.heads)
            if encoder_hidden_states is None:
                mixed, _probabilities = _attended(attn, query, hidden_states)
            else:
                mixed = self._read_all_texts(attn, layer, query)
            output = attn.to_out[1](attn.to_out[0](mixed))
            if layer == self.feature_layer:
                self.features = output[0]
            return output

        return attend

    def _read_all_texts(self, attn: Any, layer: str, query: Tensor) -> Tensor:
        self.maps[layer] = []
        total: Tensor | float = 0.0
        masks = self._masks_at(*self._size)
        for number, (text, mask) in enumerate(zip(self.texts, masks, strict=True)):
            self._reading = number
            is_conditional = self._half == len(text.states) - 1
            bias = self.word_bias[number] if self.word_bias and is_conditional else {}
            states = text.states[self._half : self._half + 1]
            mixed, probabilities = _attended(attn, query, states, bias)
            self.maps[layer].append(probabilities[0].mean(dim=0))
            total = total + mixed.new_tensor(mask).flatten()[:, None] * mixed
        assert isinstance(total, Tensor)
        return total


def _attended(
    attn: Any, query: Tensor, states: Tensor, bias: dict[int, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return softmax(Q K^T scale + bias) V, heads side by side, and the probabilities."""
    key = _split_heads(attn.to_k(states), attn.heads)
    value = _split_heads(attn.to_v(states), attn.heads)
    scores = (query * attn.scale) @ key.transpose(-1, -2)
    for token, more in (bias or {}).items():
        column = torch.zeros_like(scores[0, 0, 0])
        column[token] = more
        scores = scores + column
    probabilities = scores.softmax(dim=-1)
    return (probabilities @ value).transpose(1, 2).flatten(start_dim=2), probabilities


def _split_heads(states: Tensor, num_heads: int) -> Tensor:
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _mean(grid: Grid) -> float:
    return sum(map(sum, grid)) / (len(grid) * len(grid[0]))
