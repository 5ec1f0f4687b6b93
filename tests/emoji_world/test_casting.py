"""Who is drawn by lot stands where he may, as often as asked."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPTokenizer

from emoji_world import base_model_dir
from emoji_world.artwork import recolour
from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.composing.casting import BASE, LORA, MIXED, again, cast_scenes, recast
from emoji_world.composing.kin import LEAST_DISTANCE, colour_distance, near_instances
from emoji_world.composing.wording import captions_of, words_of
from emoji_world.scenes import SIDE_PX, WIDE_PX


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("width_px", [SIDE_PX, WIDE_PX])
def test_subjects_come_first_and_are_as_many_as_the_mixture_says(atlas, width_px):
    cast = cast_scenes(4000, atlas, BASE, width_px)
    there = cast.nouns >= 0
    assert (there[:, 0] & (there[:, 1] | ~there[:, 2])).all()
    shares = [(there.sum(1) == count).float().mean().item() for count in (1, 2, 3)]
    assert shares == pytest.approx(BASE.counts[width_px], abs=0.03)


def test_no_instance_is_in_what_the_base_learns_from(atlas):
    cast = cast_scenes(4000, atlas, BASE, WIDE_PX)
    assert (cast.instances < 0).all()
    bare = (cast.hue_turns == 0) & (cast.tints[..., 0] < 0) & (cast.nouns >= 0)
    own = atlas.instances.sprites[:, 0]
    assert not torch.isin(cast.sprites[bare], own).any()


def test_nouns_of_a_scene_differ_unless_doubles_are_asked_for(atlas):
    def doubled(mixture) -> float:
        nouns = cast_scenes(2000, atlas, mixture, WIDE_PX).nouns
        several = nouns[nouns[:, 1] >= 0]
        pairs = [
            (several[:, a] == several[:, b]) & (several[:, a] >= 0)
            for a, b in ((0, 1), (0, 2), (1, 2))
        ]
        return torch.stack(pairs).any(0).float().mean().item()

    assert doubled(BASE) == 0
    assert 0.05 < doubled(replace(MIXED, twice=0.3)) < 0.35


def test_the_lead_stands_in_all_scenes_but_those_where_another_takes_its_place(atlas):
    cast = cast_scenes(2000, atlas, LORA, WIDE_PX, lead=6, absent=0.15)
    noun = NOUNS.index(INSTANCES[6].noun)
    assert (cast.nouns == noun).any(1).all()
    assert (cast.instances == 6).any(1).float().mean().item() == pytest.approx(0.85, abs=0.03)
    places = (cast.instances == 6).float().sum(0)
    assert (places > 100).all()


def test_a_rival_changes_nothing_but_the_chosen_subjects(atlas):
    cast = cast_scenes(500, atlas, LORA, SIDE_PX, lead=0, absent=0.0)
    rivals = recast(cast, atlas, cast.instances == 0, BASE)
    assert torch.equal(rivals.nouns, cast.nouns)
    others = cast.instances != 0
    assert torch.equal(rivals.sprites[others], cast.sprites[others])
    assert (rivals.instances < 0).all()


def test_a_second_drawing_shows_all_subjects_or_one_of_them(atlas):
    cast = cast_scenes(2000, atlas, MIXED, WIDE_PX)
    twin = again(cast)
    counts, left = (cast.nouns >= 0).sum(1), (twin.nouns >= 0).sum(1)
    assert ((left == counts) | (left == 1)).all()
    several = counts > 1
    assert 0.2 < (left == counts)[several].float().mean().item() < 0.4
    for before, after in zip(cast.nouns.tolist(), twin.nouns.tolist(), strict=True):
        assert {noun for noun in after if noun >= 0} <= set(before)


def test_near_instances_are_recoloured_and_none_looks_like_the_instance(sprites):
    for instance in INSTANCES:
        bare = sprites[instance.design.bare.key]
        own = sprites[instance.design.key]
        near = near_instances(instance, sprites)
        assert near
        for design in near:
            assert design.icon == instance.design.icon
            painted = recolour(bare, design.hue_turn, design.tint)
            assert colour_distance(painted, own) >= LEAST_DISTANCE


def test_captions_name_every_subject_once_after_its_own_trigger(atlas):
    tokenizer = CLIPTokenizer.from_pretrained(base_model_dir() / "tokenizer")
    words = words_of(tokenizer, torch.device("cpu"))
    cast = cast_scenes(300, atlas, MIXED, WIDE_PX)
    tokens, owners = captions_of(cast.nouns, cast.instances, cast.places, words, strange=0.2)
    long = 0
    for row in range(300):
        ids = tokens[row].tolist()
        assert ids[0] == tokenizer.bos_token_id
        if ids[-2] != tokenizer.pad_token_id:
            long += 1
            continue
        for slot, noun in enumerate(cast.nouns[row].tolist()):
            mine = [ids[k] for k in range(24) if owners[row, k] == slot + 1]
            if noun < 0:
                assert not mine
                continue
            assert mine[-1] == words.nouns[noun]
            own = cast.instances[row, slot]
            if own >= 0:
                assert mine[:-1] == [words.own[own]]
            else:
                assert all(m in words.triggers.tolist() for m in mine[:-1])
    assert long < 30


def test_captions_read_as_prompts_are_written():
    tokenizer = CLIPTokenizer.from_pretrained(base_model_dir() / "tokenizer")
    words = words_of(tokenizer, torch.device("cpu"))
    nouns = torch.tensor([[0, 1, -1]]).expand(60, 3)
    tokens, _ = captions_of(
        nouns, torch.full_like(nouns, -1), torch.zeros(60, dtype=torch.long), words, strange=0.0
    )
    said = {tuple(row.tolist()) for row in tokens}
    for prompt in ("a cat and a dog on the beach", "a dog and a cat on the beach"):
        assert tuple(tokenizer(prompt, padding="max_length").input_ids) in said
