"""What the judge learns from: scenes, and scenes that are neither one thing nor the other.

Methods fail by blending subjects, by putting another of the class in an instance's place, and by
drawing a subject twice. So scenes are mixed with others, evenly or more here than there, half of
them as latents, which is how a sampler mixes. How much of each subject is left is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.composing.atlas import Atlas
from emoji_world.composing.casting import MIXED, cast_scenes, recast
from emoji_world.composing.compose import Cast, compose, to_pixels
from emoji_world.scenes import SIDE_PX

_UNMIXED = 0.45
_UNEVEN = 0.5
_FIELD = 4
_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Pictures of one width and what is in them; six subjects, those mixed in are the last three.

    Attributes:
        images: uint8 [n, 64, width, 3].
        cover: Cover of each subject in 1/255, uint8 [n, 6, 16, cells].
        nouns: Index into ``NOUNS``, -1 for nobody, [n, 6].
        noun_shares: How much of it is left, 0 to 1, [n, 6].
        instances: Index into ``INSTANCES``, -1 for none, [n, 6].
        instance_shares: How much of it is left, [n, 6].
        places: Index into ``PLACES``, [n].
    """

    images: Tensor
    cover: Tensor
    nouns: Tensor
    noun_shares: Tensor
    instances: Tensor
    instance_shares: Tensor
    places: Tensor


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How pictures become latents and back.

    Attributes:
        encode: Of pictures, uint8 [n, 64, width, 3], the latents, float32 [n, 8, 16, cells].
        decode: Of latents the pictures in [-1, 1], float32 [n, 3, 64, width].
    """

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def _other(cast: Cast, atlas: Atlas) -> Cast:
    """Return the same scenes with others in some places, subjects exchanged, or some gone."""
    size, device = len(cast), cast.nouns.device
    kind = torch.rand(size, 1, device=device)
    some = torch.rand(cast.nouns.shape, device=device) < 0.7
    rivals = recast(cast, atlas, some & (kind < 0.4), MIXED)
    counts = (cast.nouns >= 0).sum(1)
    steps = torch.arange(3, device=device)[None]
    exchanged = (kind >= 0.4) & (kind < 0.8) & (steps < counts[:, None])
    turn = torch.where(exchanged, (steps + 1) % counts[:, None], steps)
    gone = some & (kind >= 0.8)

    def turned(values: Tensor) -> Tensor:
        return values.gather(1, turn if values.ndim == 2 else turn[..., None].expand(-1, -1, 3))

    return replace(
        rivals,
        nouns=turned(rivals.nouns).masked_fill(gone, -1),
        instances=turned(rivals.instances).masked_fill(gone, -1),
        sprites=turned(rivals.sprites),
        hue_turns=turned(rivals.hue_turns),
        tints=turned(rivals.tints),
    )


def _weights(size: int, width_px: int, device: torch.device) -> Tensor:
    """Return how much of the other scene is in each pixel, [n, 1, 64, width]."""
    level = torch.rand(size, 1, 1, 1, device=device)
    field = torch.rand(size, 1, _FIELD, _FIELD * width_px // SIDE_PX, device=device) * 2 - 1
    field = functional.interpolate(field, (SIDE_PX, width_px), mode="bicubic")
    uneven = torch.rand(size, 1, 1, 1, device=device) < _UNEVEN
    mixed = torch.rand(size, 1, 1, 1, device=device) >= _UNMIXED
    return (level + field * uneven).clamp(0, 1) * mixed


def _share(weights: Tensor, cover: Tensor) -> Tensor:
    """Return the mean weight over each subject, [n, 3]."""
    area = cover.float() / 255
    cells = functional.avg_pool2d(weights, weights.shape[-2] // cover.shape[-2])
    return (cells * area).sum((2, 3)) / area.sum((2, 3)).clamp(min=1e-3)


@torch.no_grad()
def _some(size: int, width_px: int, atlas: Atlas, codec: Codec) -> Evidence:
    device = atlas.sprites.device
    cast = cast_scenes(size, atlas, MIXED, width_px)
    other = _other(cast, atlas)
    one, two = compose(cast, atlas), compose(other, atlas)
    weights = _weights(size, width_px, device)
    pixels = torch.lerp(to_pixels(one.images), to_pixels(two.images), weights)
    coarse = functional.avg_pool2d(weights, 4)
    decoded = codec.decode(torch.lerp(codec.encode(one.images), codec.encode(two.images), coarse))
    as_latents = torch.rand(size, 1, 1, 1, device=device) < 0.5
    pictures = torch.where(as_latents, decoded, pixels).clamp(-1, 1)
    same = (cast.sprites == other.sprites) & (cast.hue_turns == other.hue_turns)
    same &= (cast.tints == other.tints).all(-1) & (cast.nouns == other.nouns)
    left = torch.where(same, 1.0, 1 - _share(weights, one.masks))
    alike = cast.nouns == other.nouns
    there = _share(weights, two.masks)
    return Evidence(
        images=((pictures + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous(),
        cover=torch.cat([one.masks, two.masks], 1),
        nouns=torch.cat([cast.nouns, other.nouns.masked_fill(alike, -1)], 1),
        noun_shares=torch.cat([torch.where(alike, 1.0, left), there], 1),
        instances=torch.cat([cast.instances, other.instances.masked_fill(same, -1)], 1),
        instance_shares=torch.cat([left, there], 1),
        places=cast.places,
    )


def blended_scenes(size: int, width_px: int, atlas: Atlas, codec: Codec) -> Evidence:
    """Return about half plain scenes and half mixed ones."""
    parts = [
        _some(min(_AT_ONCE, size - start), width_px, atlas, codec)
        for start in range(0, size, _AT_ONCE)
    ]
    return Evidence(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    )
