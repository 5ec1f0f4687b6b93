"""Who stands in a scene, drawn by lot for thousands of scenes at once."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import NOUNS
from emoji_world.composing.atlas import Atlas, Family
from emoji_world.composing.compose import Cast
from emoji_world.scenes import CENTRES, FEET, LONGEST, SIDE_PX, WIDE_PX, spread_of

MAX_SUBJECTS = 3
_JITTERED, _JITTER = 0.25, 0.04
_ALL_AGAIN = 0.3
"""How often a second drawing elsewhere shows all subjects again."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How often there is what.

    Attributes:
        counts: Shares of scenes with one, two and three subjects, by the width in pixels.
        recoloured: Share of subjects that are a class design in any other colour.
        siblings: Share that are a sibling of their class's instances.
        near: Share that are an instance's icon in other colours.
        instances: Share that are an instance itself.
        twice: Share of scenes with several subjects where two are of the same noun.
    """

    counts: dict[int, tuple[float, float, float]]
    recoloured: float = 0.12
    siblings: float = 0.14
    near: float = 0.16
    instances: float = 0.0
    twice: float = 0.0


BASE = Mixture(counts={SIDE_PX: (0.3, 0.5, 0.2), WIDE_PX: (0.12, 0.33, 0.55)})
"""What the base model learns from: no instance."""
LORA = replace(BASE, counts={SIDE_PX: (0.45, 0.4, 0.15), WIDE_PX: (0.2, 0.35, 0.45)})
"""What surrounds the instance that a LoRA learns."""
ORDINARY = replace(BASE, counts={SIDE_PX: (0.5, 0.5, 0.0), WIDE_PX: (0.5, 0.5, 0.0)})
"""What surrounds it for LoRAs trained in the ordinary way."""
MIXED = replace(
    BASE,
    counts={SIDE_PX: (0.3, 0.5, 0.2), WIDE_PX: (0.15, 0.35, 0.5)},
    instances=0.45,
    twice=0.15,
)
"""What the judges learn from: instances as common as classes, and doubles."""


def _rand(*shape: int, device: torch.device) -> Tensor:
    return torch.rand(*shape, device=device)


def _pick(family: Family, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sprite, hue turn and tint of one design of each group, [n, 3] and [n, 3, 3]."""
    share = torch.rand(groups.shape, device=groups.device)
    number = (share * family.sizes[groups]).long().clamp(max=family.sprites.shape[1] - 1)
    return (
        family.sprites[groups, number],
        family.hue_turns[groups, number],
        family.tints[groups, number],
    )


def _who(atlas: Atlas, nouns: Tensor, mixture: Mixture) -> dict[str, Tensor]:
    """Return sprites, colours and instances of subjects of these nouns, each [n, 3]."""
    device = nouns.device
    draw = torch.rand(nouns.shape, device=device)
    sprites, turns, tints = _pick(atlas.classes, nouns)
    jitter = (torch.rand_like(draw) * 2 - 1) * _JITTER
    turns = torch.where(torch.rand_like(draw) < _JITTERED, jitter, turns)
    instances = torch.full_like(nouns, -1)

    def put(chosen: Tensor, of: tuple[Tensor, Tensor, Tensor]) -> None:
        nonlocal sprites, turns, tints
        sprites, turns = torch.where(chosen, of[0], sprites), torch.where(chosen, of[1], turns)
        tints = torch.where(chosen[..., None], of[2], tints)

    edge = mixture.recoloured
    any_turn, any_tint = torch.rand_like(draw), torch.rand(*nouns.shape, 3, device=device)
    any_tint = torch.where(torch.rand_like(draw)[..., None] < 0.5, 0.1 + 0.85 * any_tint, -1.0)
    put(draw < edge, (sprites, any_turn, any_tint))
    chosen = (draw >= edge) & (draw < edge + mixture.siblings) & (atlas.siblings.sizes[nouns] > 0)
    put(chosen, _pick(atlas.siblings, nouns))
    edge += mixture.siblings
    own = atlas.own_instances[nouns]
    many = (own >= 0).sum(-1)
    number = (torch.rand_like(draw) * many).long().clamp(max=own.shape[-1] - 1)
    mine = own.gather(-1, number[..., None])[..., 0]
    some = mine.clamp(min=0)
    near = (draw >= edge) & (draw < edge + mixture.near) & (mine >= 0)
    put(near & (atlas.near.sizes[some] > 0), _pick(atlas.near, some))
    edge += mixture.near
    itself = (draw >= edge) & (draw < edge + mixture.instances) & (mine >= 0)
    put(itself, _pick(atlas.instances, some))
    instances = torch.where(itself, mine, instances)
    return {"sprites": sprites, "hue_turns": turns, "tints": tints, "instances": instances}


def _geometry(counts: Tensor, width_px: int) -> dict[str, Tensor]:
    """Return sizes and positions as ``draw_scene`` draws them, each [n, 3]."""
    device, size = counts.device, len(counts)
    table = torch.zeros(4, MAX_SUBJECTS, device=device)
    sizes, spreads = torch.zeros(4, 2, device=device), torch.zeros(4, device=device)
    for count, centres in CENTRES.items():
        table[count, :count] = torch.tensor(centres, device=device)
        sizes[count] = torch.tensor(LONGEST[width_px, count], device=device)
        spreads[count] = spread_of(count)
    low, high = sizes[counts].unbind(-1)
    grow = _rand(size, MAX_SUBJECTS, device=device)
    stray = (2 * _rand(size, MAX_SUBJECTS, device=device) - 1) * spreads[counts][:, None]
    feet = FEET[0] + (FEET[1] - FEET[0]) * _rand(size, MAX_SUBJECTS, device=device)
    return {
        "longest_px": (low[:, None] + (high - low)[:, None] * grow) * SIDE_PX,
        "centres_px": (table[counts] + stray) * width_px,
        "feet_px": feet * SIDE_PX,
        "mirrored": _rand(size, MAX_SUBJECTS, device=device) < 0.5,
    }


def cast_scenes(
    size: int,
    atlas: Atlas,
    mixture: Mixture,
    width_px: int,
    *,
    lead: int | None = None,
    absent: float = 0.15,
) -> Cast:
    """Return ``size`` scenes drawn by lot.

    Args:
        size: Number of scenes.
        atlas: What there is.
        mixture: How often there is what.
        width_px: Width of the pictures.
        lead: An instance that stands in every scene, or none.
        absent: Share of scenes where others of its class stand in the lead's place.
    """
    device = atlas.sprites.device
    shares = torch.tensor(mixture.counts[width_px], device=device)
    counts = torch.multinomial(shares, size, replacement=True) + 1
    order = _rand(size, len(NOUNS), device=device)
    if lead is not None:
        order[:, int(atlas.instance_nouns[lead])] = -1
    nouns = order.argsort(1)[:, :MAX_SUBJECTS]
    twice = _rand(size, device=device) < mixture.twice
    nouns[:, 1] = torch.where(twice, nouns[:, 0], nouns[:, 1])
    who = _who(atlas, nouns, mixture)
    same = twice & (_rand(size, device=device) < 0.6)
    for values in who.values():
        chosen = same.view(-1, *[1] * (values.ndim - 2))
        values[:, 1] = torch.where(chosen, values[:, 0], values[:, 1])
    if lead is not None:
        here = _rand(size, device=device) >= absent
        sprite = atlas.instances.sprites[lead, 0]
        who["sprites"][:, 0] = torch.where(here, sprite, who["sprites"][:, 0])
        who["hue_turns"][:, 0] *= ~here
        who["tints"][:, 0] = torch.where(here[:, None], -1.0, who["tints"][:, 0])
        who["instances"][:, 0] = torch.where(here, lead, -1)
    late = torch.arange(MAX_SUBJECTS, device=device) >= counts[:, None]
    nouns = nouns.masked_fill(late, -1)
    who["instances"] = who["instances"].masked_fill(late, -1)
    # Whoever came first stands anywhere among those who are there.
    places = (_rand(size, MAX_SUBJECTS, device=device) + late * 9).argsort(1)
    shuffled = {
        name: values.gather(1, places if values.ndim == 2 else places[..., None].expand(-1, -1, 3))
        for name, values in {"nouns": nouns, **who}.items()
    }
    per_place = atlas.backgrounds[width_px].shape[1]
    return Cast(
        width_px=width_px,
        **shuffled,
        **_geometry(counts, width_px),
        places=torch.randint(len(PLACES), (size,), device=device),
        backgrounds=torch.randint(per_place, (size,), device=device),
    )


def recast(cast: Cast, atlas: Atlas, chosen: Tensor, mixture: Mixture) -> Cast:
    """Return the same scenes with others of the same noun where ``chosen``, [n, 3]."""
    who = _who(atlas, cast.nouns.clamp(min=0), mixture)
    return replace(
        cast,
        sprites=torch.where(chosen, who["sprites"], cast.sprites),
        hue_turns=torch.where(chosen, who["hue_turns"], cast.hue_turns),
        tints=torch.where(chosen[..., None], who["tints"], cast.tints),
        instances=torch.where(chosen, who["instances"], cast.instances),
    )


def again(cast: Cast) -> Cast:
    """Return the subjects at another place, or more often one of several."""
    size, device = len(cast), cast.nouns.device
    counts = (cast.nouns >= 0).sum(1)
    shift = (_rand(size, device=device) * counts).long()
    alone = _rand(size, device=device) >= _ALL_AGAIN
    steps = torch.arange(MAX_SUBJECTS, device=device)
    # Those who are there move round, so that anyone may come first and stay alone.
    turn = torch.where(
        steps < counts[:, None], (steps + shift[:, None]) % counts[:, None], steps[None]
    )
    late = steps >= torch.where(alone, 1, counts)[:, None]

    def turned(values: Tensor) -> Tensor:
        return values.gather(1, turn if values.ndim == 2 else turn[..., None].expand(-1, -1, 3))

    return replace(
        cast,
        nouns=turned(cast.nouns).masked_fill(late, -1),
        instances=turned(cast.instances).masked_fill(late, -1),
        sprites=turned(cast.sprites),
        hue_turns=turned(cast.hue_turns),
        tints=turned(cast.tints),
        **_geometry(torch.where(alone, 1, counts), cast.width_px),
        places=torch.randint(len(PLACES), (size,), device=device),
        backgrounds=cast.backgrounds,
    )
