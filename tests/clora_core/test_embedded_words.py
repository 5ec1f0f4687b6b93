"""Names of embeddings in texts, and in files by their tensors' names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import file_parts
from clora_core.recipe.reading.embedded import EmbeddedWord, folded_name, pieces_of, same_name
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.reading.text import PromptText


def found(text, *names, syntax="plain"):
    """What is read as which name, or as words."""
    read = read_prompt(text, syntax)
    pieces = pieces_of(read, [EmbeddedWord(name, 1) for name in names])
    assert "".join(read.words[piece.start : piece.end] for piece in pieces) == read.words
    return [
        (read.words[piece.start : piece.end], names[piece.word])
        for piece in pieces
        if piece.word is not None
    ]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("a toy cat", ["toy"], [("toy", "toy")]),
        ("a Toy cat", ["toy"], [("Toy", "toy")]),
        ("toys, atoy and toy_1", ["toy"], []),
        ("toy-cat", ["toy"], [("toy", "toy")]),
        ("toy-cat", ["toy", "toy-cat"], [("toy-cat", "toy-cat")]),
        ("bad_prompt_2", ["bad_prompt", "bad_prompt_2"], [("bad_prompt_2", "bad_prompt_2")]),
        ("a toy  cat", ["toy cat"], [("toy  cat", "toy cat")]),
        ("a<toy>, <toy>s", ["<toy>"], [("<toy>", "<toy>"), ("<toy>", "<toy>")]),
        ("a.b c", ["a.b"], [("a.b", "a.b")]),
        ("axb c", ["a.b"], []),
        ("", ["toy"], []),
    ],
)
def test_names_are_found_as_whole_words_in_any_case(text, names, expected):
    assert found(text, *names) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("di\u017fco", "disco"),
        ("İstanbul", "istanbul"),
        ("istanbul", "İstanbul"),
        ("12 \u00b5m", "12 \u03bcm"),
        ("ΟΔΟΣ", "οδος"),
        ("οδοσ", "οδος"),
        ("\u212aelvin", "kelvin"),
        ("STRAẞE", "straße"),
    ],
)
def test_letters_whose_small_form_is_not_the_same_are_one_letter(text, name):
    assert found(f"a {text} cat", name) == [(text, name)]
    assert same_name(text, name)


@pytest.mark.parametrize(
    ("text", "name"), [("m\u0131djourney", "midjourney"), ("strasse", "straße")]
)
def test_other_letters_are_other_letters(text, name):
    assert found(f"a {text} cat", name) == []
    assert not same_name(text, name)


ODD_LETTERS = st.text("ai\u0131Iİs\u017fSkK\u212aµμ\u03c3ςΣßẞfﬁéÉ1-( _", max_size=6)


def upper(name):
    """In capitals, except where these are more characters, or another letter's (a dotless i's)."""
    return "".join(c if len(c.upper()) > 1 or c == "\u0131" else c.upper() for c in name)


@given(
    st.lists(ODD_LETTERS.filter(str.strip), min_size=1, max_size=3),
    st.sampled_from([str, upper]),
    ODD_LETTERS,
    ODD_LETTERS,
)
def test_what_is_found_is_the_same_name_at_its_own_place(names, spelled, before, after):
    names = [" ".join(name.split()) for name in names]
    words = [EmbeddedWord(name, 1) for name in names]
    for name in names:
        text = f"{before}, {spelled(name)} {after}"
        pieces = pieces_of(PromptText(text), words)
        assert "".join(text[piece.start : piece.end] for piece in pieces) == text
        read = [piece for piece in pieces if piece.word is not None]
        assert read
        for piece in read:
            assert same_name(text[piece.start : piece.end], names[piece.word])


@given(st.text(st.characters(max_codepoint=127)) | st.text())
def test_a_folded_name_is_as_long_as_the_name_and_small_in_ascii(name):
    name = " ".join(name.split())
    assert len(folded_name(name)) == len(name)
    assert folded_name(folded_name(name)) == folded_name(name)
    if name.isascii():
        assert folded_name(name) == name.lower()


def test_signs_of_syntax_are_none_of_a_name():
    assert found("a (toy:1.2) \\(v2\\) cat", "toy (v2)", syntax="weighted") == [
        ("toy (v2)", "toy (v2)")
    ]


def test_a_break_parts_a_name():
    assert found("toy BREAK cat", "toy cat", syntax="weighted") == []
    assert found("toy BREAK cat", "toy cat", "toy", syntax="weighted") == [("toy", "toy")]


def parts(shapes):
    split = file_parts("x.safetensors", shapes)
    return [
        (each.name, dict(each.tensors), dict(each.widths), each.num_vectors)
        for each in split.embeddings
    ], sorted(split.layers)


SD = "text_encoder"
XL = "text_encoder_2"
LAYER = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"emb_params": (3, 768)}, (None, {SD: "emb_params"}, {SD: 768}, 3)),
        ({"<toy>": (768,)}, ("<toy>", {SD: "<toy>"}, {SD: 768}, 1)),
        ({"sks toy": (2, 1024)}, ("sks toy", {SD: "sks toy"}, {SD: 1024}, 2)),
        (
            {"clip_g": (4, 1280), "clip_l": (4, 768)},
            (None, {SD: "clip_l", XL: "clip_g"}, {SD: 768, XL: 1280}, 4),
        ),
        (
            {"bundle_emb.toy v1.5.string_to_param.*": (2, 768)},
            ("toy v1.5", {SD: "bundle_emb.toy v1.5.string_to_param.*"}, {SD: 768}, 2),
        ),
        (
            {"bundle_emb.toy cat.clip_l": (2, 96)},
            ("toy cat", {SD: "bundle_emb.toy cat.clip_l"}, {SD: 96}, 2),
        ),
        (
            {"bundle_emb.x.clip_g": (1280,), "bundle_emb.x.clip_l": (768,)},
            ("x", {SD: "bundle_emb.x.clip_l", XL: "bundle_emb.x.clip_g"}, {SD: 768, XL: 1280}, 1),
        ),
    ],
)
def test_every_format_of_embeddings_is_read(shapes, expected):
    assert parts(shapes) == ([expected], [])


def test_what_is_no_embedding_is_a_layer():
    assert parts({LAYER: (4, 8), "bundle_emb.b.emb_params": (8,)}) == (
        [("b", {SD: "bundle_emb.b.emb_params"}, {SD: 8}, 1)],
        [LAYER],
    )
    for name in ("down.weight", LAYER, "x.alpha"):
        assert parts({name: (4, 8)}) == ([], [name])
    assert parts({"mystery": (4, 8), "other": (4, 8)}) == ([], ["mystery", "other"])


def test_several_words_of_diffusers_are_read_each_under_its_name():
    assert parts({"<toy>": (2, 768), "<ink blot>": (768,)}) == (
        [
            ("<ink blot>", {SD: "<ink blot>"}, {SD: 768}, 1),
            ("<toy>", {SD: "<toy>"}, {SD: 768}, 2),
        ],
        [],
    )


@pytest.mark.parametrize("other", [LAYER, "toy", "emb_params", "bundle_emb.b.emb_params"])
def test_a_word_of_diffusers_beside_other_tensors_is_refused_by_name(other):
    message = "^x.safetensors holds '<toy>', which is an embedding .*a file of their own$"
    with pytest.raises(LoraFileError, match=message):
        parts({other: (2, 768), "<toy>": (2, 768)})
