"""From prompts to conditions, each text with its own mix of LoRAs in the text encoders.

Stable Diffusion 1.x takes the last hidden state; XL takes the last but one of both towers side by
side, and the second tower's pooled output with the image size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel
from clora_core.lora.bank import LoraBank


@torch.no_grad()
def encode(
    model: DiffusionModel,
    banks: Sequence[LoraBank],
    texts: Sequence[str],
    weights: Float[Tensor, "lane lora"],
    *,
    width_px: int,
    height_px: int,
    negative: bool = False,
) -> Conditions:
    """Return the conditions of ``texts``.

    Args:
        model: Base model.
        banks: One LoRA bank per text tower.
        texts: One prompt per lane.
        weights: Each lane's LoRA weights in the text encoders.
        width_px: Image width, for XL's size conditions.
        height_px: Image height, likewise.
        negative: The texts are negative prompts, which some XL models want as zeros when empty.
    """
    hidden: list[Float[Tensor, "lane token tower_channel"]] = []
    pooled: Float[Tensor, "lane pooled"] | None = None
    for tower, bank in zip(model.towers, banks, strict=True):
        ids = tower.tokenizer(
            list(texts),
            padding="max_length",
            max_length=tower.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(model.device)
        with bank.attached():
            bank.use(weights)
            output: Any = tower.encoder(ids, output_hidden_states=model.is_xl)
        hidden.append(output.hidden_states[-2] if model.is_xl else output[0])
        pooled = output[0] if model.is_xl else None
    text = torch.cat(hidden, dim=-1).to(model.dtype)  # [lane, token, channel]
    if pooled is None:
        return Conditions(text)
    pooled = pooled.to(model.dtype)
    if negative and model.zeros_for_empty_negative:
        given = torch.tensor([bool(t) for t in texts], device=text.device).to(text.dtype)
        text, pooled = text * given[:, None, None], pooled * given[:, None]
    ids = torch.tensor([height_px, width_px, 0, 0, height_px, width_px]).to(text)
    return Conditions(text, {"text_embeds": pooled, "time_ids": ids.expand(len(texts), -1)})
