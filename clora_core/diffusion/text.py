"""From prompts to conditions, each text with its own mix of LoRAs in the text encoders.

Stable Diffusion 1.x takes the last hidden state; XL takes the last but one of both towers side by
side, and the second tower's pooled output with the image size.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.model import BaseModel
from clora_core.lora.bank import LoraBank


@dataclass(frozen=True)
class Conditions:
    """What the UNet is told about each lane.

    Attributes:
        text: Token embeddings [lane, token, channel].
        pooled: XL's pooled text [lane, channel].
        time_ids: XL's size conditions [lane, 6].
    """

    text: Float[Tensor, "lane token channel"]
    pooled: Float[Tensor, "lane pooled"] | None = None
    time_ids: Float[Tensor, "lane ids"] | None = None

    def added(self) -> dict[str, Tensor] | None:
        """Return diffusers' ``added_cond_kwargs``."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    def __getitem__(self, lanes: slice) -> "Conditions":
        return Conditions(
            self.text[lanes],
            None if self.pooled is None else self.pooled[lanes],
            None if self.time_ids is None else self.time_ids[lanes],
        )

    @classmethod
    def join(cls, parts: Sequence["Conditions"]) -> "Conditions":
        """Return the lanes of all ``parts``, one after the other."""

        def cat(tensors: Sequence[Tensor | None]) -> Tensor | None:
            present = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(present) if len(present) == len(tensors) else None

        return cls(
            torch.cat([part.text for part in parts]),
            cat([part.pooled for part in parts]),
            cat([part.time_ids for part in parts]),
        )


@torch.no_grad()
def encode(
    model: BaseModel,
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
    with _attached(banks):
        hidden: list[Tensor] = []
        pooled: Tensor | None = None
        for tower, bank in zip(model.towers, banks, strict=True):
            bank.use(weights)
            ids = tower.tokenizer(
                list(texts),
                padding="max_length",
                max_length=tower.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(model.device)
            output: Any = tower.encoder(ids, output_hidden_states=model.is_xl)
            hidden.append(output.hidden_states[-2] if model.is_xl else output[0])
            pooled = output[0] if model.is_xl else None
    text = torch.cat(hidden, dim=-1).to(model.dtype)
    if not model.is_xl or pooled is None:
        return Conditions(text)
    pooled = pooled.to(model.dtype)
    if negative and model.zeros_for_empty_negative:
        given = torch.tensor([bool(t) for t in texts], device=text.device).to(text.dtype)
        text, pooled = text * given[:, None, None], pooled * given[:, None]
    ids = torch.tensor([height_px, width_px, 0, 0, height_px, width_px]).to(text)
    return Conditions(text, pooled, ids.expand(len(texts), -1))


@contextmanager
def _attached(banks: Sequence[LoraBank]) -> Generator[None]:
    with ExitStack() as stack:
        for bank in banks:
            stack.enter_context(bank.attached())
        yield
