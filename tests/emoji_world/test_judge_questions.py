"""What the judge is asked: recognisable, clearly itself, and how many."""

import numpy as np
import torch

from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import INSTANCES, LABELS, instance_name
from emoji_world.composing.blends import Evidence
from emoji_world.presence import (
    PresenceNet,
    Verdict,
    figures_of,
    judge,
    load_presence,
    save_presence,
)
from emoji_world.training.judge import question, questions, wear


def evidence(instance_shares: list[float], noun_shares: list[float], nouns: list[int]) -> Evidence:
    """One picture whose subjects stand side by side, all of the first instance."""
    count = len(nouns)
    cover = torch.zeros(1, count, 16, 24, dtype=torch.uint8)
    for slot in range(count):
        cover[0, slot, 4:12, 6 * slot : 6 * slot + 6] = 255
    return Evidence(
        images=torch.zeros(1, 64, 96, 3, dtype=torch.uint8),
        cover=cover,
        nouns=torch.tensor([nouns]),
        noun_shares=torch.tensor([noun_shares]),
        instances=torch.zeros(1, count, dtype=torch.long),
        instance_shares=torch.tensor([instance_shares]),
        places=torch.zeros(1, dtype=torch.long),
    )


def test_a_half_blended_subject_is_not_itself_and_whether_one_knows_it_is_left_open():
    nouns, like, itself = questions(evidence([0.5], [1.0], [0]))
    assert nouns.copies[0, 0] == 1
    assert nouns.counted[0, 0] == 1
    assert like.counted[0, 0] == 0
    assert itself.copies[0, 0] == 0
    assert itself.counted[0, 0] == 1
    assert itself.yes.sum() == 0
    assert itself.judged.all()


def test_a_whole_subject_is_all_three_and_a_trace_is_none():
    for share, there in ((0.95, 1), (0.1, 0)):
        for asked in questions(evidence([share], [share], [0])):
            assert asked.copies[0, 0] == there
            assert asked.counted[0, 0] == 1


def test_copies_are_counted_and_cells_belong_to_their_subjects():
    nouns, _, _ = questions(evidence([1.0, 1.0], [1.0, 1.0], [3, 3]))
    assert nouns.copies[0, 3] == 2
    cells = nouns.yes[0, 3]
    assert cells.shape == (8, 12)
    assert cells[2:6, :6].all()
    assert cells.sum() == 24


def test_an_empty_picture_is_certain_to_hold_nothing():
    labels = torch.full((2, 3), -1)
    asked = question(
        labels, torch.ones(2, 3), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), 5, low=0.3, high=0.6
    )
    assert asked.copies.sum() == 0
    assert asked.counted.all()
    assert asked.judged.all()


def test_wear_keeps_the_shape_of_wide_pictures():
    torch.manual_seed(0)
    assert wear(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)


def test_the_judge_answers_for_both_widths_and_survives_its_file(tmp_path):
    torch.manual_seed(0)
    net = PresenceNet(LABELS, PLACES, width=16, individuals=[i.name for i in INSTANCES]).eval()
    save_presence(net, tmp_path / "judge.safetensors")
    again = load_presence(tmp_path / "judge.safetensors")
    for width in (64, 96):
        picture = np.random.default_rng(0).integers(0, 256, (64, width, 3), dtype=np.uint8)
        [one], [two] = judge(net, [picture]), judge(again, [picture])
        assert set(one.identity) == {instance.name for instance in INSTANCES}
        assert set(one.copies) == set(LABELS)
        assert np.allclose(list(one.present.values()), list(two.present.values()), atol=0.01)


def test_a_judge_of_presence_alone_says_nothing_of_identity():
    net = PresenceNet(LABELS, PLACES, width=16).eval()
    [verdict] = judge(net, [np.zeros((64, 64, 3), np.uint8)])
    assert set(verdict.present) == set(LABELS)
    assert verdict.identity == {}
    assert verdict.copies == {}


def test_figures_of_a_picture_are_of_the_instances_that_it_should_show():
    verdict = Verdict(
        present={"violet-cat": 0.9, "husky-dog": 0.6, "polar-bear": 0.1},
        place="beach",
        identity={"violet-cat": 0.9, "husky-dog": 0.2, "polar-bear": 0.1},
        copies={"cat": 1.0, "dog": 1.6},
    )
    assert figures_of(verdict, ["violet-cat", "husky-dog"]) == {
        "presence_all": 1.0,
        "presence_share": 1.0,
        "identity_all": 0.0,
        "doubled": 1.0,
    }
    assert figures_of(verdict, ["violet-cat", "polar-bear"])["presence_share"] == 0.5


def test_a_judge_without_identity_has_two_figures_less():
    verdict = Verdict(present={"violet-cat": 0.9}, place="beach")
    assert set(figures_of(verdict, ["violet-cat"])) == {"presence_all", "presence_share"}


def test_both_loras_of_an_instance_are_that_instance_and_other_names_are_none():
    assert instance_name("violet-cat") == instance_name("plain-violet-cat") == "violet-cat"
    assert instance_name("cat") is None
    assert instance_name("pixel-art") is None
