"""Scenes composed by the thousand on the device, as ``emoji_world.scenes`` draws them one by one.

A sprite is scaled, mirrored and put in its place by two matrices whose entries say how much of a
row or column of the sprite lies in one of the picture: exact areas, two products a subject.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from emoji_world.artwork import SPRITE_SIDE_PX
from emoji_world.composing.atlas import Atlas
from emoji_world.scenes import CELL_PX, SIDE_PX

_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who stands where in n scenes; subjects from left to right, at most three.

    Attributes:
        width_px: Width of the pictures.
        nouns: Index into ``NOUNS``, -1 for nobody, [n, 3].
        instances: Index into ``INSTANCES``, -1 for none, [n, 3].
        sprites: Index into the atlas, [n, 3].
        hue_turns: Turn of the hues in parts of the circle, [n, 3].
        tints: Tint, -1 for none, [n, 3, 3].
        mirrored: Whether left and right are exchanged, [n, 3].
        longest_px: Longest side, [n, 3].
        centres_px: Where the middle is, [n, 3].
        feet_px: Where the lower end is, [n, 3].
        places: Index into ``PLACES``, [n].
        backgrounds: Which picture of the place, [n].
    """

    width_px: int
    nouns: Tensor
    instances: Tensor
    sprites: Tensor
    hue_turns: Tensor
    tints: Tensor
    mirrored: Tensor
    longest_px: Tensor
    centres_px: Tensor
    feet_px: Tensor
    places: Tensor
    backgrounds: Tensor

    def __len__(self) -> int:
        """Return the number of scenes."""
        return len(self.places)

    def rows(self, rows: Tensor | slice) -> "Cast":
        """Return some of the scenes."""
        parts = {name: x[rows] for name, x in vars(self).items() if isinstance(x, Tensor)}
        return Cast(width_px=self.width_px, **parts)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Composed scenes.

    Attributes:
        images: uint8 [n, 64, width, 3].
        masks: Cover of each subject in 1/255, uint8 [n, 3, 16, width / 4].
        boxes: Left, top, right, bottom in pixels, zeros for nobody, float32 [n, 3, 4].
    """

    images: Tensor
    masks: Tensor
    boxes: Tensor


def _areas(places_px: int, start: Tensor, length: Tensor, source: Tensor, flip: Tensor) -> Tensor:
    """Return how a sprite's rows or columns fall on those of the picture, [n, picture, sprite].

    Args:
        places_px: Rows or columns of the picture.
        start: Where the sprite begins in the picture, [n].
        length: How long it is there, [n].
        source: How long it is in the atlas, [n].
        flip: Whether it is mirrored, [n].
    """
    device = start.device
    edge = torch.arange(places_px, device=device)[None, :, None] - start[:, None, None]
    scale = (source / length)[:, None, None]
    low, high = edge * scale, (edge + 1) * scale
    ends = source[:, None, None].float()
    turned = flip[:, None, None]
    low, high = torch.where(turned, ends - high, low), torch.where(turned, ends - low, high)
    pixel = torch.arange(SPRITE_SIDE_PX, device=device)[None, None, :]
    overlap = torch.minimum(high, pixel + 1) - torch.maximum(low, pixel)
    return overlap.clamp(min=0) / scale


def _recoloured(rgb: Tensor, turns: Tensor, tints: Tensor) -> Tensor:
    """Return colours [n, 3, h, w] as ``emoji_world.artwork.recolour`` makes them."""
    to_yiq = torch.tensor(_TO_YIQ)
    from_yiq = torch.linalg.inv(to_yiq).to(rgb.device)
    angle = 2 * torch.pi * turns
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    spin = torch.stack(
        [
            *(one, zero, zero),
            *(zero, angle.cos(), -angle.sin()),
            *(zero, angle.sin(), angle.cos()),
        ],
        -1,
    ).view(-1, 3, 3)
    matrix = from_yiq @ spin @ to_yiq.to(rgb.device)
    turned = torch.einsum("nij,njhw->nihw", matrix, rgb).clamp(0, 1)
    grey = (turned * rgb.new_tensor([0.3, 0.59, 0.11])[None, :, None, None]).sum(1, keepdim=True)
    tinted = (grey * 1.7).clamp(0, 1) * tints[:, :, None, None]
    tinted = (tinted + (grey - 0.62).clamp(0, 1) * 1.3).clamp(0, 1)
    return torch.where((tints[:, :1] >= 0)[..., None, None], tinted, turned)


def compose(cast: Cast, atlas: Atlas) -> Composed:
    """Return the pictures, masks and boxes of a cast."""
    width_px, count = cast.width_px, len(cast)
    ground = atlas.backgrounds[width_px][cast.places, cast.backgrounds]
    canvas = ground.permute(0, 3, 1, 2).float() / 255
    masks, boxes = [], []
    across = torch.arange(width_px, device=canvas.device)[None, None, :]
    down = torch.arange(SIDE_PX, device=canvas.device)[None, :, None]
    for slot in range(cast.nouns.shape[1]):
        there = (cast.nouns[:, slot] >= 0).float()
        sprite = cast.sprites[:, slot]
        heights, widths = atlas.heights[sprite], atlas.widths[sprite]
        scale = cast.longest_px[:, slot] / torch.maximum(heights, widths)
        height = (heights * scale).round().clamp(min=4)
        width = (widths * scale).round().clamp(min=4)
        left = (cast.centres_px[:, slot] - width / 2).round().clamp(min=0)
        left = torch.minimum(left, width_px - width)
        top = (cast.feet_px[:, slot].round() - height).clamp(min=0)
        flip = cast.mirrored[:, slot]
        columns = _areas(width_px, left, width, widths, flip)
        lines = _areas(SIDE_PX, top, height, heights, torch.zeros_like(flip))
        layer = lines[:, None] @ (atlas.sprites[sprite] @ columns.mT[:, None])
        alpha = layer[:, 3:].clamp(0, 1) * there[:, None, None, None]
        colours = _recoloured(
            layer[:, :3] / layer[:, 3:].clamp(min=1e-3),
            cast.hue_turns[:, slot],
            cast.tints[:, slot],
        )
        x = (across - (left + width / 2)[:, None, None] + 0.5) / (0.46 * width)[:, None, None]
        y = (down - (top + height)[:, None, None] + 1) / 2.2
        shade = 0.22 * (1.4 - torch.hypot(x, y)).clamp(0, 1) * there[:, None, None]
        canvas = canvas * (1 - shade[:, None])
        canvas = canvas * (1 - alpha) + colours * alpha
        masks.append(functional.avg_pool2d(alpha, CELL_PX))
        boxes.append(torch.stack([left, top, left + width, top + height], -1) * there[:, None])
    images = (canvas * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous()
    cover = (torch.cat(masks, 1) * 255).byte()
    return Composed(images=images, masks=cover, boxes=torch.stack(boxes, 1).view(count, -1, 4))


def to_pixels(images: Tensor) -> Tensor:
    """Turn uint8 pictures [n, h, w, 3] into floats in [-1, 1], [n, 3, h, w]."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
