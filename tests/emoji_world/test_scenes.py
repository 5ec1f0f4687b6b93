import copy

import numpy as np
import pytest

from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import CLASSES, INSTANCES, NOUNS, STYLES
from emoji_world.captions import caption_of, listed
from emoji_world.measures.pools import any_subjects
from emoji_world.scenes import (
    SIDE_PX,
    WIDE_PX,
    draw_scene,
    of_class,
    of_instance,
    random_subjects,
)
from emoji_world.styles import apply_style


def test_a_seed_names_a_scene(sprites):
    one, two = (
        draw_scene(random_subjects(2, random), sprites, random)
        for random in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert np.array_equal(one.image, two.image)
    assert one.subjects == two.subjects


@pytest.mark.parametrize("width_px", [SIDE_PX, WIDE_PX])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_mask_lies_in_its_own_box(sprites, count, width_px):
    random = np.random.default_rng(count)
    scene = draw_scene(random_subjects(count, random), sprites, random, width_px=width_px)
    assert scene.image.shape == (SIDE_PX, width_px, 3)
    for box, mask in zip(scene.boxes, scene.masks, strict=True):
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = box / 4
        assert columns.min() >= np.floor(left)
        assert columns.max() < np.ceil(right)
        assert rows.min() >= np.floor(top)
        assert rows.max() < np.ceil(bottom)


def test_two_subjects_leave_each_other_room(sprites):
    for seed in range(20):
        random = np.random.default_rng(seed)
        masks = draw_scene(random_subjects(2, random), sprites, random).masks
        assert (masks.min(0) > 0.5).sum() <= 0.1 * (masks.max(0) > 0.5).sum()


def test_a_rival_changes_nothing_but_the_subject_it_replaces(sprites):
    random = np.random.default_rng(3)
    before = copy.deepcopy(random)
    dog = of_class("dog", np.random.default_rng(1))
    with_instance = draw_scene([of_instance(INSTANCES[0]), dog], sprites, random)
    with_rival = draw_scene([of_class("cat", np.random.default_rng(0)), dog], sprites, before)
    differs = np.abs(with_instance.image.astype(int) - with_rival.image).max(-1) > 0
    left, _, right, _ = with_instance.boxes[0].astype(int)
    assert differs.any()
    assert not differs[:, :left].any()
    assert not differs[:, right:].any()


def test_more_than_three_subjects_are_refused(sprites):
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="a scene holds 1 to 3 subjects, got 4"):
        draw_scene(random_subjects(4, random), sprites, random)


def test_a_width_that_is_none_of_the_two_is_refused(sprites):
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="64 or 96 px wide, got 80"):
        draw_scene(random_subjects(1, random), sprites, random, width_px=80)


def test_subjects_of_prompts_are_listed_as_one_lists_them():
    assert listed(["a cat"]) == "a cat"
    assert listed(["a cat", "a dog"]) == "a cat and a dog"
    assert listed(["a cat", "a dog", "a car"]) == "a cat, a dog and a car"


def test_captions_name_every_subject_once_and_mark_its_word(sprites):
    for seed in range(30):
        random = np.random.default_rng(seed)
        scene = draw_scene(any_subjects(random), sprites, random)
        caption = caption_of(scene, random)
        for number, subject in enumerate(scene.subjects, start=1):
            at = caption.words.index(subject.noun)
            assert caption.subjects[at] == number
            if subject.trigger:
                assert caption.words[at - 1] == subject.trigger


def test_which_side_a_subject_stands_on_says_nothing_about_its_place_in_the_caption(sprites):
    first = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        scene = draw_scene(random_subjects(2, random), sprites, random)
        words = caption_of(scene, random).words
        first += words.index(scene.subjects[0].noun) < words.index(scene.subjects[1].noun)
    assert 70 < first < 130


def test_an_instance_is_never_a_design_of_its_class():
    for instance in INSTANCES:
        keys = {design.key for design in CLASSES[instance.noun]}
        assert instance.design.key not in keys


def test_the_world_is_as_wide_as_promised():
    assert len(NOUNS) >= 10
    assert min(map(len, CLASSES.values())) >= 5
    assert len(INSTANCES) >= 10
    assert len({instance.noun for instance in INSTANCES}) >= 6
    assert len(STYLES) >= 2
    assert len(PLACES) == 6
    assert len({instance.trigger for instance in INSTANCES}) == len(INSTANCES)


@pytest.mark.parametrize("style", [style.name for style in STYLES])
def test_a_style_changes_every_picture_and_keeps_its_shape(sprites, style):
    random = np.random.default_rng(0)
    image = draw_scene(random_subjects(1, random), sprites, random).image
    styled = apply_style(image, style)
    assert styled.shape == image.shape
    assert np.abs(styled.astype(int) - image).mean() > 10
