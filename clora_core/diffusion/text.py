"""From prompts to conditions, each text with its own mix of LoRAs in the text encoders.

Stable Diffusion 1.x takes the last hidden state; XL takes the last but one of both towers side by
side, and the second tower's pooled output with the image size. ``clip_skip`` takes an earlier one.
A long text goes through the text encoder a window at a time, and the windows stand one after the
other; the pooled output is the first one's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel, TextTower
from clora_core.diffusion.row_words import NO_WORDS, RowWords
from clora_core.diffusion.text_tokens import ChunkedTokens, chunked_tokens
from clora_core.lora.bank import LoraBank
from clora_core.lora.word_vectors import Placed, replaced_vectors
from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import MarkedPrompt


@torch.no_grad()
def encode(
    model: DiffusionModel,
    banks: Sequence[LoraBank],
    prompts: Sequence[MarkedPrompt],
    weights: Float[Tensor, "lane lora"],
    *,
    width_px: int,
    height_px: int,
    negative: bool = False,
    num_chunks: int | None = None,
    clip_skip: int | None = None,
    words: Sequence[RowWords] | None = None,
) -> Conditions:
    """Return the conditions of ``prompts``.

    Args:
        model: Base model.
        banks: One LoRA bank per text tower.
        prompts: One text per lane.
        weights: Each lane's LoRA weights in the text encoders.
        width_px: Image width, for XL's size conditions.
        height_px: Image height, likewise.
        negative: The texts are negative prompts, which some XL models want as zeros when empty.
        num_chunks: Windows of the text encoder that each text is padded to; as many as the longest
            of ``prompts`` takes if None.
        clip_skip: See ``SamplerConfig``.
        words: Each lane's embeddings; none if None.

    Raises:
        PromptError: A concept's words are longer than a window; the text encoder has fewer layers
            than ``clip_skip``.
    """
    hidden: list[Float[Tensor, "lane token tower_channel"]] = []
    pooled: Float[Tensor, "lane pooled"] | None = None
    words = words or [NO_WORDS] * len(prompts)
    for tower, bank in zip(model.towers, banks, strict=True):
        tokens = [
            chunked_tokens(tower.tokenizer, prompt, model.text_window, own.words)
            for prompt, own in zip(prompts, words, strict=True)
        ]
        length = num_chunks or max(len(each.ids) for each in tokens)
        placed = _placed(tokens, words, tower, length)
        with bank.attached():
            bank.use(weights)
            states, first = _hidden_states(model, tower, tokens, placed, clip_skip)
        hidden.append(states)
        pooled = first if model.is_xl else None
    text = torch.cat(hidden, dim=-1).to(model.dtype)  # [lane, token, channel]
    if pooled is None:
        return Conditions(text)
    pooled = pooled.to(model.dtype)
    if negative and model.zeros_for_empty_negative:
        given = torch.tensor([bool(p.text) for p in prompts], device=text.device).to(text.dtype)
        text, pooled = text * given[:, None, None], pooled * given[:, None]
    ids = torch.tensor([height_px, width_px, 0, 0, height_px, width_px]).to(text)
    return Conditions(text, {"text_embeds": pooled, "time_ids": ids.expand(len(prompts), -1)})


def _hidden_states(
    model: DiffusionModel,
    tower: TextTower,
    tokens: Sequence[ChunkedTokens],
    placed: Sequence[Sequence[Placed]],
    clip_skip: int | None,
) -> tuple[Float[Tensor, "lane token channel"], Float[Tensor, "lane ..."]]:
    """Return the states that the UNet reads, all chunks in a row, and the first chunk's output.

    Emphasis moves a token's state away from, or towards, that of an empty text at its place, as
    ComfyUI does: ``empty + weight * (state - empty)``.

    Args:
        model: Base model.
        tower: The text encoder.
        tokens: Each lane's.
        placed: Vectors of embeddings, for each chunk there is.
        clip_skip: See ``SamplerConfig``.
    """
    padded = [each.padded(len(placed)) for each in tokens]
    chunks: list[Float[Tensor, "lane window channel"]] = []
    outputs: list[Float[Tensor, "lane ..."]] = []
    empty: Float[Tensor, "lane window channel"] | None = None
    for chunk, vectors in enumerate(placed):
        ids = torch.tensor([each.ids[chunk] for each in padded], device=model.device)
        with replaced_vectors(tower.encoder, vectors):
            states, first = _states(model, tower, ids, clip_skip)
        weights = torch.tensor([each.weights[chunk] for each in padded], dtype=torch.float64)
        if bool((weights != 1).any()):
            if empty is None:
                blank = torch.tensor([each.empty for each in padded], device=model.device)
                empty, _ = _states(model, tower, blank, clip_skip)
            factor = weights.to(states)[:, :, None]  # [lane, window, 1]
            states = torch.where(factor == 1, states, empty + factor * (states - empty))
        chunks.append(states)
        outputs.append(first)
    return torch.cat(chunks, dim=1), outputs[0]


def _placed(
    tokens: Sequence[ChunkedTokens], words: Sequence[RowWords], tower: TextTower, num_chunks: int
) -> list[list[Placed]]:
    """Return the vectors of embeddings in each chunk."""
    placed: list[list[Placed]] = [[] for _ in range(num_chunks)]
    for lane, (each, own) in enumerate(zip(tokens, words, strict=True)):
        for token in each.embedded:
            vectors = own.vectors[token.word].components[tower.name]
            placed[token.chunk].append(Placed(lane, token.position, vectors[token.vector]))
    return placed


def _states(
    model: DiffusionModel, tower: TextTower, ids: Int[Tensor, "lane window"], clip_skip: int | None
) -> tuple[Float[Tensor, "lane window channel"], Float[Tensor, "lane ..."]]:
    """Return the states of the layer that is read, and the first output.

    That of XL's second tower is the pooled text.
    """
    layer = clip_skip or (2 if model.is_xl else 1)
    output: Any = tower.encoder(ids, output_hidden_states=model.is_xl or layer > 1)
    if not model.is_xl and layer == 1:
        return output[0], output[0]
    # The first of the hidden states is what goes into the first layer.
    num_layers = len(output.hidden_states) - 1
    if layer > num_layers:
        raise PromptError(
            f"clip_skip is {layer} and the text encoder {tower.name!r} has {num_layers} layers; "
            "lower it"
        )
    states = output.hidden_states[-layer]
    if not model.is_xl:  # which reads normalised states, XL those between two layers
        states = tower.final_layer_norm(states)
    return states, output[0]
