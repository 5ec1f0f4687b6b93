import numpy as np
import pytest

from emoji_world.bestiary import INSTANCES
from emoji_world.measures.blends import (
    ALL_THERE,
    BLEND_WAYS,
    FAILURES,
    blend,
    draw_case,
    instance_sets,
)

RED, BLUE = (np.full((96, side, 4), 255, np.uint8) for side in (72, 40))
RED[..., :3], BLUE[..., :3] = (200, 0, 0), (0, 0, 100)


def test_halves_have_one_sprite_left_and_the_other_right():
    mixed = blend(RED, BLUE, "halves")
    assert mixed.shape == (96, 36 + 20, 4)
    assert (mixed[:, :36, :3] == (200, 0, 0)).all()
    assert (mixed[:, 36:, :3] == (0, 0, 100)).all()


def test_a_mixture_has_the_mean_colour_where_both_are_and_is_faint_where_one_is():
    mixed = blend(RED, BLUE, "mixed")
    assert mixed[50, 36].tolist() == [100, 0, 50, 255]
    assert mixed[50, 0].tolist() == [200, 0, 0, 128]


def test_checkers_have_both_colours_in_every_part():
    mixed = blend(RED, BLUE, "checkers")
    for rows in np.array_split(mixed[:, 16:56], 4):
        assert {tuple(pixel) for pixel in rows[..., :3].reshape(-1, 3)} == {
            (200, 0, 0),
            (0, 0, 100),
        }


@pytest.mark.parametrize("count", [2, 3])
def test_every_case_is_a_scene_of_its_own(sprites, count):
    instances = instance_sets(count, 1, seed=3)[0]
    images = {
        case: draw_case(instances, case, sprites, np.random.default_rng(5))
        for case in (ALL_THERE, *FAILURES)
    }
    assert all(image.shape == (64, 64, 3) for image in images.values())
    assert len({image.tobytes() for image in images.values()}) == len(FAILURES) + 1
    assert len(FAILURES) == 3 + len(BLEND_WAYS)


def test_an_unknown_case_is_refused(sprites):
    with pytest.raises(ValueError, match="should be 'all there' or one of"):
        draw_case(INSTANCES[:2], "melted", sprites, np.random.default_rng(0))


def test_sets_are_different_and_of_different_nouns():
    sets = instance_sets(3, 40, seed=1)
    assert len(set(sets)) == 40
    assert all(len({instance.noun for instance in chosen}) == 3 for chosen in sets)
