import pytest

from emoji_world import base_model_dir
from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.captions import TRIGGERS, VOCABULARY
from emoji_world.tokenizer import MAX_POSITIONS, build_tokenizer, merges_for


@pytest.fixture(scope="module")
def committed():
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(base_model_dir() / "tokenizer")


def test_every_word_of_the_world_is_one_token(committed):
    for word in (*VOCABULARY, *NOUNS, *TRIGGERS):
        assert len(committed(word).input_ids) == 3, word


def test_a_word_nobody_taught_falls_back_to_its_letters(committed):
    ids = committed("a zebra").input_ids[2:-1]
    assert len(ids) > 1
    assert committed.decode(ids).replace(" ", "") == "zebra"


def test_triggers_stay_whole_next_to_punctuation(committed):
    tokens = committed.convert_ids_to_tokens(committed("a <l1> cat, a <l12> dog").input_ids)
    assert "<l1>" in tokens
    assert "<l12>" in tokens


def test_prompts_are_padded_to_the_positions_the_model_has(committed):
    assert committed.model_max_length == MAX_POSITIONS
    assert committed("a cat", padding="max_length").input_ids[-1] == committed.pad_token_id


def test_all_triggers_of_instances_are_reserved():
    assert {instance.trigger for instance in INSTANCES} <= set(TRIGGERS)


def test_a_rebuilt_tokenizer_equals_the_committed_one(committed, tmp_path):
    rebuilt = build_tokenizer(VOCABULARY + NOUNS, TRIGGERS, tmp_path)
    assert rebuilt.get_vocab() == committed.get_vocab()


def test_merges_make_each_word_whole_however_words_overlap():
    words = ["on", "mountain", "no", "noon", "onion", "moon"]
    assert merges_for(words)
