"""Embeddings in texts: diffusers' tokens as the oracle, and pictures against plain words' ones."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import load_pipeline
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row
from safetensors.torch import load_file, save_file

from clora_core.composer import Composer
from clora_core.diffusion.row_words import row_words
from clora_core.diffusion.text import encode
from clora_core.diffusion.text_tokens import chunked_tokens
from clora_core.lora.bank import LoraBank
from clora_core.lora.cache import LoraCache
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError, PromptError
from clora_core.recipe.prompts.marked import MarkedPrompt
from clora_core.recipe.reading.embedded import EmbeddedWord
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.row import Row
from clora_core.results import RowFailure
from clora_core.sampling.row_lanes import row_lanes

FILLER = ", ".join(["the red book of the beach in the garden at the forest"] * 7)
"""78 words and 6 commas."""


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def xl(tiny_sdxl_dir):
    return Core(tiny_sdxl_dir)


def table_of(encoder):
    return encoder.get_input_embeddings().weight


def vectors(tower, count, seed=1):
    """Random vectors as large as a text encoder's own."""
    table = table_of(tower.encoder)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, table.shape[1], generator=generator) * float(table.std())


def saved(folder, name, tensors):
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def embedding(path, *words, **fields):
    """A style LoRA of a row that holds these (name, number of vectors)."""
    known = tuple(EmbeddedWord(*word) for word in words)
    return lora_use(path, **{"kind": "style", "words": known, **fields})


def text_of(core, prompt, *loras, syntax="weighted"):
    banks = [LoraBank(tower.encoder, [], tower.name) for tower in core.model.towers]
    row = Row(prompt=prompt, loras=loras, seed=0, method="merge", sampler=tiny_sampler())
    words = row_words(row, lambda lora: core.factors(lora.uri))
    marked = MarkedPrompt(read_prompt(prompt, syntax))
    options = {"width_px": 128, "height_px": 128, "words": [words]}
    return encode(core.model, banks, [marked], torch.zeros(1, 0), **options)


@pytest.mark.parametrize(
    "prompt", ["a <toy> on the beach", "<toy>", "a cat, <toy>, <toy> and a dog"]
)
def test_an_embedding_is_diffusers_tokens_of_it(core, tiny_sd_dir, tmp_path, prompt):
    own = vectors(core.model.towers[0], 3)
    path = saved(tmp_path, "learned_embeds", {"<toy>": own})
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    pipeline.load_textual_inversion(str(path))
    expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
    assert relative(text_of(core, prompt, embedding(path, ("<toy>", 3))).text, expected) < 1e-12


def test_both_text_encoders_of_sdxl_have_vectors_of_their_own(xl, tiny_sdxl_dir, tmp_path):
    first, second = (vectors(tower, 2, seed) for seed, tower in enumerate(xl.model.towers))
    path = saved(tmp_path, "toy", {"clip_l": first, "clip_g": second})
    pipeline = load_pipeline(tiny_sdxl_dir, dtype=torch.float64)
    for own, tokenizer, encoder in (
        (first, pipeline.tokenizer, pipeline.text_encoder),
        (second, pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        pipeline.load_textual_inversion({"<toy>": own}, tokenizer=tokenizer, text_encoder=encoder)
    asked = {"device": "cpu", "do_classifier_free_guidance": False}
    expected, _, pooled, _ = pipeline.encode_prompt("a <toy> on the beach", **asked)
    found = text_of(xl, "a toy on the beach", embedding(path, ("toy", 2)))
    assert relative(found.text, expected) < 1e-12
    assert relative(found.added["text_embeds"], pooled) < 1e-12


def test_emphasis_moves_every_vector_of_a_name_from_an_empty_text(core, tmp_path):
    path = saved(tmp_path, "toy", {"emb_params": vectors(core.model.towers[0], 3)})
    lora = embedding(path, ("toy", 3))
    plain, empty = text_of(core, "a toy cat", lora).text, text_of(core, "").text
    expected = plain.clone()
    expected[:, 2:5] = empty[:, 2:5] + 1.4 * (plain[:, 2:5] - empty[:, 2:5])
    assert relative(text_of(core, "a (toy:1.4) cat", lora).text, expected) < 1e-12


def test_a_name_is_not_split_over_chunks(core, tmp_path):
    path = saved(tmp_path, "toy", {"emb_params": vectors(core.model.towers[0], 9)})
    lora = embedding(path, ("toy", 9))
    words = FILLER.replace(",", "").split()[:70]
    prompt = " ".join([*words, "toy", "cat"])
    found = text_of(core, prompt, lora).text
    parts = [text_of(core, part, lora).text for part in (" ".join(words), "toy cat")]
    assert relative(found, torch.cat(parts, dim=1)) < 1e-12


def test_an_embedding_longer_than_a_window_is_refused(core):
    marked = MarkedPrompt(read_prompt("a toy", "plain"))
    with pytest.raises(PromptError, match=r"embedding 'toy' has 7 vectors.* reads 6 tokens"):
        chunked_tokens(core.model.towers[0].tokenizer, marked, 8, [EmbeddedWord("toy", 7)])


def test_the_positions_of_a_trigger_are_those_of_all_its_vectors(core, tmp_path):
    path = saved(tmp_path, "toy-cat", {"emb_params": vectors(core.model.towers[0], 4)})
    cat = embedding(path, ("toy-cat", 4), kind="concept", subject="cat", trigger="toy-cat")
    made = Row(
        prompt="a red cat on the beach", loras=(cat,), seed=1, method="single",
        sampler=tiny_sampler(),
    )  # fmt: skip
    words = row_words(made, lambda lora: core.factors(lora.uri))
    (variant,) = row_lanes(core.model, made, words).positions
    assert variant[0].trigger == variant[0].subject == (3, 4, 5, 6)


TEXT = st.lists(
    st.sampled_from(["a", "cat,", "red", "toy", "TOY  cat", "(toy:1.2)", "BREAK", "toys", "dog"]),
    max_size=40,
)


@given(TEXT, st.integers(1, 6), st.integers(1, 6))
def test_a_text_has_every_vector_once_where_its_name_is(core, pieces, short, long):
    words = [EmbeddedWord("toy", short), EmbeddedWord("toy cat", long)]
    marked = MarkedPrompt(read_prompt(" ".join(pieces), "weighted"))
    tokens = chunked_tokens(core.model.towers[0].tokenizer, marked, 12, words)
    assert all(len(ids) == 12 for ids in tokens.ids)
    sizes = {0: short, 1: long}
    names = []
    embedded = list(tokens.embedded)
    while embedded:
        chunk, position, word, vector = embedded[0]
        run = [(chunk, position + n, word, n) for n in range(sizes[word])]
        assert vector == 0
        assert embedded[: sizes[word]] == run  # whole, in one window, in order
        names.append(word)
        del embedded[: sizes[word]]
    parts = " ".join(pieces).lower().replace("(toy:1.2)", "toy").split("break")
    spaced = [" ".join(part.replace(",", " ,").split()) for part in parts]
    expected = [
        int(pair.group() != "toy")
        for part in spaced
        for pair in re.finditer(r"\btoy( cat)?\b", part)
    ]
    assert names == expected
    at = [tokens.at((0, len(marked.text)))[n] for n in range(len(tokens.spans))]
    assert at == sorted(at) == list(tokens.positions)


def composer_of(core):
    return Composer(core.model, LoraCache(10**9))


def picture(composer, *rows):
    made = composer.compose(rows)
    assert not any(isinstance(each, RowFailure) for each in made), made
    return [each.image for each in made]


@pytest.fixture(scope="module")
def single(tiny_sd_dir):
    return Core(tiny_sd_dir, "float32")


@pytest.mark.parametrize("method", ["clora", "freefuse", "w-switch"])
def test_vectors_of_words_make_the_picture_of_these_words(single, tiny_loras, tmp_path, method):
    """In triggers, in the prompt as written and in the negative prompt."""
    tower = single.model.towers[0]
    table = table_of(tower.encoder).detach()

    def of(words):
        return table[tower.tokenizer(words)["input_ids"][1:-1]]

    paths = [saved(tmp_path, name, {"emb_params": of(words)}) for name, words in
             (("xqa", "red book"), ("xqb", "garden"), ("xqc", "the forest"))]  # fmt: skip
    sampler = tiny_sampler(num_steps=2, guide_until_step=0)
    plain = two_concept_row(
        tiny_loras, width=128, height=128, sampler=sampler, method=method,
        negative_prompt="the forest at night", prompt="a cat and a dog, garden",
    )  # fmt: skip
    cat, dog = (replace(plain.loras[0], trigger="red book"), plain.loras[1])
    plain = replace(plain, loras=(cat, dog))
    styles = [
        embedding(path, (path.stem, count), weight=1.0)
        for path, count in zip(paths, (2, 1, 2), strict=True)
    ]
    named = replace(
        plain,
        loras=(replace(cat, trigger="xqa"), dog, *styles),
        prompt="a cat and a dog, XQB",
        negative_prompt="xqc at night",
    )
    composer = composer_of(single)
    [expected] = picture(composer, plain)
    [found] = picture(composer, named)
    assert np.array_equal(found, expected)
    [without] = picture(composer, replace(named, loras=named.loras[:2]))
    assert not np.array_equal(without, expected)


@pytest.mark.parametrize("method", ["composite", "freefuse"])
def test_a_rows_vectors_are_its_own_in_a_batch(single, tiny_loras, tmp_path, method):
    own, other = (
        saved(tmp_path, name, {"emb_params": vectors(single.model.towers[0], 3, seed)})
        for seed, name in enumerate(("toy", "else"))
    )
    sampler = tiny_sampler(num_steps=2, guide_until_step=0)
    plain = two_concept_row(
        tiny_loras, width=128, height=128, sampler=sampler, method=method,
        prompt="a cat and a dog, toy",
    )  # fmt: skip
    rows = [
        replace(plain, loras=(*plain.loras, embedding(own, ("toy", 3)))),
        replace(plain, loras=(*plain.loras, embedding(other, ("toy", 3)))),
        plain,
    ]
    composer = composer_of(single)
    together = picture(composer, *rows)
    for image, row in zip(together, rows, strict=True):
        [alone] = picture(composer, row)
        assert np.abs(image.astype(int) - alone).max() <= 1  # rounding
    assert len({image.tobytes() for image in together}) == 3


def test_a_row_that_does_not_say_what_its_file_holds_is_refused(single, tmp_path):
    path = saved(tmp_path, "toy", {"emb_params": vectors(single.model.towers[0], 2)})
    row = Row(
        prompt="a toy", loras=(embedding(path),), seed=1, method="merge", sampler=tiny_sampler(),
        width=128, height=128,
    )  # fmt: skip
    [failed] = composer_of(single).compose([row])
    assert "holds 1 embedding(s) of [2] vectors and the row says []" in failed.message


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"emb_params": torch.ones(2, 7)}, "holds an embedding of width 7, and the text encoders"),
        ({"clip_l": torch.ones(2, 7), "clip_g": torch.ones(2, 9)}, "of width 7 and 9, and the"),
        ({"clip_l": torch.ones(2, 7), "clip_g": torch.ones(1, 9)}, "with 1 and 2 vectors for the"),
        ({"clip_l": torch.ones(2, 7)}, "of width 7, and the"),
        ({"clip_g": torch.ones(2, 7)}, "has emb_params or clip_l .* or both clip_l and clip_g"),
        ({"emb_params": torch.ones(76, 7)}, "of 76 vectors, and a text encoder reads 75 at once"),
        ({"bundle_emb.a.b.t5": torch.ones(2, 7)}, "holds 'bundle_emb.a.b.t5', and of bundled"),
        ({"bundle_emb.x.emb_params": torch.ones(1, 2, 7)}, r"'x' of shape \[1, 2, 7\]; it must be"),
    ],
)
def test_what_is_no_embedding_for_the_model_is_refused(core, tmp_path, tensors, sentence):
    path = saved(tmp_path, "toy", tensors)
    with pytest.raises(LoraFileError, match=sentence):
        read_lora(path, lora_targets(core.model.components))


def test_values_that_are_not_finite_are_refused(core, tmp_path):
    own = vectors(core.model.towers[0], 2)
    own[1, 3] = float("nan")
    path = saved(tmp_path, "toy", {"emb_params": own})
    with pytest.raises(LoraFileError, match="an embedding with values that are not finite"):
        read_lora(path, lora_targets(core.model.components))


def test_a_lora_brings_its_words_along(core, tiny_loras, tmp_path):
    layers = load_file(tiny_loras["peft_text"])
    own = vectors(core.model.towers[0], 2)
    bundled = {
        "bundle_emb.toy cat.string_to_param.*": own,
        "bundle_emb.ink.emb_params": own[0].clone(),
    }
    path = saved(tmp_path, "bundled", layers | bundled)
    found = read_lora(path, lora_targets(core.model.components))
    assert [word.num_vectors for word in found.words] == [1, 2]
    assert torch.equal(found.words[0].components["text_encoder"], own[:1])
    alone = read_lora(saved(tmp_path, "alone", layers), lora_targets(core.model.components))
    assert found.components.keys() == alone.components.keys()
    assert found.num_bytes == alone.num_bytes + 3 * own.shape[1] * 4
