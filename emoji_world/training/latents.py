"""Scenes as the diffusion stages see them: latents, masks and captions, all on the device."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emoji_world.composing.atlas import Atlas
from emoji_world.composing.compose import Cast, compose
from emoji_world.composing.wording import Words, captions_of
from emoji_world.training.vae import encode_all

_EMPTY_CAPTIONS = 0.1
_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Scenes of one width.

    Attributes:
        latents: float16 [n, 8, 16, cells].
        masks: uint8 [n, subject, 16, cells].
        tokens: Token ids, [n, captions, 24].
        token_subjects: Subject of each token, [n, captions, 24].
    """

    latents: Tensor
    masks: Tensor
    tokens: Tensor
    token_subjects: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of ``Latents`` with one caption each."""

    latents: Tensor
    masks: Tensor
    tokens: Tensor
    token_subjects: Tensor


@torch.no_grad()
def latents_of(
    cast: Cast,
    atlas: Atlas,
    words: Words,
    vae: Any,
    *,
    captions: int = 4,
    strange: float = 0.2,
    grounded: bool = True,
    restyle: Callable[[Tensor], Tensor] | None = None,
) -> Latents:
    """Return scenes composed, encoded and captioned.

    Args:
        cast: The scenes.
        atlas: What stands in them.
        words: What is said about them.
        vae: The autoencoder.
        captions: Captions a scene.
        strange: Chance of triggers nobody trained.
        grounded: Whether tokens know their subjects, so that attention can be taught.
        restyle: Makes other pictures of the pictures, uint8 [n, 64, width, 3], or nothing.
    """
    latents, masks = [], []
    for start in range(0, len(cast), _AT_ONCE):
        made = compose(cast.rows(slice(start, start + _AT_ONCE)), atlas)
        images = restyle(made.images) if restyle else made.images
        latents.append(encode_all(vae, images, images.device))
        masks.append(made.masks)
    said = [
        captions_of(cast.nouns, cast.instances, cast.places, words, strange=strange)
        for _ in range(captions)
    ]
    owners = torch.stack([subjects for _, subjects in said], 1)
    return Latents(
        latents=torch.cat(latents),
        masks=torch.cat(masks),
        tokens=torch.stack([tokens for tokens, _ in said], 1),
        token_subjects=owners * grounded,
    )


def joined(parts: list[Latents]) -> Latents:
    """Return scenes of several parts one after the other."""
    return Latents(
        **{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])}
    )


def take(pool: Latents, rows: Tensor, empty_tokens: Tensor) -> Batch:
    """Return rows of the pool with a random caption each, a tenth of them empty."""
    caption = torch.randint(pool.tokens.shape[1], rows.shape, device=rows.device)
    tokens = pool.tokens[rows, caption].long()
    owners = pool.token_subjects[rows, caption]
    silent = torch.rand(rows.shape, device=rows.device) < _EMPTY_CAPTIONS
    return Batch(
        latents=pool.latents[rows].float(),
        masks=pool.masks[rows],
        tokens=torch.where(silent[:, None], empty_tokens, tokens),
        token_subjects=owners * ~silent[:, None],
    )
