"""Scenes composed by the thousand are the scenes that are drawn one by one."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from emoji_world import scenes
from emoji_world.artwork import Sprites
from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import NOUNS
from emoji_world.composing.atlas import Atlas
from emoji_world.composing.compose import Cast, compose
from emoji_world.scenes import CENTRES, SIDE_PX, WIDE_PX, Subject, draw_scene


class RecordingRandom:
    """A generator that remembers what it drew."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.drawn: list[float] = []

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append(float(self._random.uniform(low, high)))
        return self.drawn[-1]

    def random(self) -> float:
        self.drawn.append(float(self._random.random()))
        return self.drawn[-1]


def background(width_px: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (SIDE_PX, width_px, 3), dtype=np.uint8)


def cast_of(
    subjects: list[Subject], random: RecordingRandom, sprites: Sprites, width_px: int
) -> Cast:
    """Return the cast of a scene from the numbers that ``draw_scene`` drew for it."""
    rows = np.array(random.drawn).reshape(len(subjects), 6)
    empty = 3 - len(subjects)

    def row(values: list[float], fill: float = 0.0) -> torch.Tensor:
        return torch.tensor([[*values, *[fill] * empty]], dtype=torch.float32)

    centres = CENTRES[len(subjects)]
    jittered = [
        subject.hue_turn or (turn if jitter < 0.25 and subject.tint is None else 0.0)
        for subject, (_, _, jitter, turn, _, _) in zip(subjects, rows, strict=True)
    ]
    keys = list(sprites)
    tints = [subject.tint or (-1.0, -1.0, -1.0) for subject in subjects]
    return Cast(
        width_px=width_px,
        nouns=row([NOUNS.index(subject.noun) for subject in subjects], -1).long(),
        instances=torch.full((1, 3), -1),
        sprites=row([keys.index(subject.sprite) for subject in subjects]).long(),
        hue_turns=row(jittered),
        tints=torch.tensor([[*tints, *[(-1.0, -1.0, -1.0)] * empty]]),
        mirrored=row(list(rows[:, 1])) < 0.5,
        longest_px=row(list(rows[:, 0] * SIDE_PX)),
        centres_px=row([width_px * (c + s) for c, s in zip(centres, rows[:, 4], strict=True)]),
        feet_px=row(list(rows[:, 5] * SIDE_PX)),
        places=torch.tensor([0]),
        backgrounds=torch.tensor([0]),
    )


@pytest.mark.parametrize("width_px", [SIDE_PX, WIDE_PX])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_composed_scene_is_the_scene_that_is_drawn(
    sprites, bare_atlas, monkeypatch, width_px, count
):
    ground = background(width_px)
    monkeypatch.setattr(scenes, "draw_background", lambda *_, **__: ground)
    keys = list(sprites)
    for seed in range(8):
        pick = np.random.default_rng(seed)
        subjects = [
            Subject(noun=noun, sprite=keys[pick.integers(len(keys))], tint=tint, hue_turn=turn)
            for noun, tint, turn in zip(
                NOUNS[:count], (None, (0.2, 0.8, 0.4), None), (0.0, 0.0, 0.3), strict=False
            )
        ]
        random = RecordingRandom(seed)
        drawn = draw_scene(subjects, sprites, random, place=PLACES[0], width_px=width_px)
        atlas: Atlas = bare_atlas(ground, width_px)
        made = compose(cast_of(subjects, random, sprites, width_px), atlas)
        difference = np.abs(made.images[0].numpy().astype(int) - drawn.image)
        # Pillow rounds its box to whole pixels and in between to bytes; areas here are exact.
        assert difference.mean() < 2.5
        np.testing.assert_allclose(made.boxes[0, :count].numpy(), drawn.boxes, atol=0.01)
        cover = made.masks[0, :count].numpy() / 255
        assert np.abs(cover - drawn.masks).mean() < 0.01
        assert made.masks[0, count:].sum() == 0


def test_scenes_without_subjects_are_their_backgrounds(bare_atlas):
    ground = background(WIDE_PX)
    cast = Cast(
        width_px=WIDE_PX,
        nouns=torch.full((2, 3), -1),
        instances=torch.full((2, 3), -1),
        sprites=torch.zeros(2, 3, dtype=torch.long),
        hue_turns=torch.zeros(2, 3),
        tints=torch.full((2, 3, 3), -1.0),
        mirrored=torch.zeros(2, 3, dtype=torch.bool),
        longest_px=torch.full((2, 3), 20.0),
        centres_px=torch.full((2, 3), 48.0),
        feet_px=torch.full((2, 3), 60.0),
        places=torch.zeros(2, dtype=torch.long),
        backgrounds=torch.zeros(2, dtype=torch.long),
    )
    made = compose(cast, bare_atlas(ground, WIDE_PX))
    assert np.array_equal(made.images[1].numpy(), ground)
    assert made.boxes.sum() == 0
