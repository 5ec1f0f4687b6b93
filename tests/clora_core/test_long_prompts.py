"""Long and weighted prompts through the text encoder and the sampler, against plain readings."""

from dataclasses import replace

import oracles.sequential
import pytest
import torch
from compel.embeddings_provider import EmbeddingsProvider, ReturnedEmbeddingsType
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.long_prompts import chunk_texts, encode_long, in_chunks
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.prompts import OracleVariant
from oracles.sequential import sequential_sample
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.diffusion.text import encode
from clora_core.lora.bank import LoraBank
from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.chunks import LongTextError
from clora_core.recipe.prompts.marked import MarkedPrompt, mark_prompt
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.sampling.row_lanes import row_lanes

FILLER = ", ".join(["the red book of the beach in the garden at the forest"] * 7)
"""78 words and 6 commas."""


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def xl(tiny_sdxl_dir):
    return Core(tiny_sdxl_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    with loaded_loras(
        pipeline, [lora_use(tiny_loras[name]) for name in ("peft_attention", "peft_text")]
    ):
        yield pipeline


@pytest.fixture
def row(tiny_loras):
    sampler = tiny_sampler(num_steps=2, guide_until_step=1, num_refine_updates=1)
    return two_concept_row(tiny_loras, width=128, height=128, sampler=sampler)


def text_of(core, prompt, *, syntax="weighted", **options):
    """The conditions of one text without LoRAs."""
    banks = [LoraBank(tower.encoder, [], tower.name) for tower in core.model.towers]
    marked = MarkedPrompt(read_prompt(prompt, syntax))
    options = {"width_px": 128, "height_px": 128, **options}
    return encode(core.model, banks, [marked], torch.zeros(1, 0), **options)


def test_chunks_stand_side_by_side_as_diffusers_encodes_each(core, pipeline):
    prompt = f"a cat, {FILLER} and a dog"
    parts = chunk_texts(prompt, pipeline.tokenizer)
    assert len(parts) == 2
    expected = [pipeline.encode_prompt(part, "cpu", 1, False)[0] for part in parts]
    found = text_of(core, prompt).text
    assert found.shape[1] == 2 * 77
    assert relative(found, torch.cat(expected, dim=1)) < 1e-12


def test_sdxl_pools_the_first_chunk(xl, tiny_sdxl_dir):
    pipeline = load_pipeline(tiny_sdxl_dir, dtype=torch.float64)
    first, second = (
        pipeline.encode_prompt(part, device="cpu", do_classifier_free_guidance=False)
        for part in ("a cat", "a dog on the beach")
    )
    found = text_of(xl, "a cat BREAK a dog on the beach")
    assert relative(found.text, torch.cat([first[0], second[0]], dim=1)) < 1e-12
    assert relative(found.added["text_embeds"], first[2]) < 1e-12


@pytest.mark.parametrize(
    ("pieces", "weights", "prompt"),
    [
        (["a", "cat", "and a dog"], [1, 1.4, 1], "a (cat:1.4) and a dog"),
        (["a", "cat", "and", "a dog"], [1, 1.1 * 1.1, 1.1, 1], "a ((cat) and) a dog"),
        (["photo", "of a red cat"], [1.3, 1.1], "(photo:1.3) (of a red cat)"),
    ],
)
def test_emphasis_is_compels_for_weights_above_1(core, pieces, weights, prompt):
    tower = core.model.towers[0]
    provider = EmbeddingsProvider(
        tower.tokenizer,
        tower.encoder,
        dtype_for_device_getter=lambda _: torch.float64,
        returned_embeddings_type=ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
    )
    with torch.no_grad():
        expected = provider.get_embeddings_for_weighted_prompt_fragments([pieces], [weights])
    assert relative(text_of(core, prompt).text, expected) < 1e-12


def test_emphasis_below_1_is_the_share_of_the_way_from_an_empty_text(core):
    plain, empty = text_of(core, "a red cat").text, text_of(core, "").text
    found = text_of(core, "a [red] (cat:0.25)").text
    expected = plain.clone()
    for position, weight in ((2, 1 / 1.1), (3, 0.25)):
        for channel in range(plain.shape[2]):
            there, nothing = float(plain[0, position, channel]), float(empty[0, position, channel])
            expected[0, position, channel] = nothing + weight * (there - nothing)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize(("clip_skip", "diffusers_skip"), [(1, None), (2, 1)])
def test_clip_skip_is_one_more_than_diffusers_number(
    core, pipeline, monkeypatch, clip_skip, diffusers_skip
):
    # diffusers looks for a part that transformers' present text encoders are themselves.
    itself = property(lambda encoder: encoder)
    monkeypatch.setattr(type(pipeline.text_encoder), "text_model", itself, raising=False)
    expected, _ = pipeline.encode_prompt("a red cat", "cpu", 1, False, clip_skip=diffusers_skip)
    assert relative(text_of(core, "a red cat", clip_skip=clip_skip).text, expected) < 1e-12


def test_the_clip_skip_of_sdxl_is_2(xl):
    ours = text_of(xl, "a red cat")
    assert torch.equal(ours.text, text_of(xl, "a red cat", clip_skip=2).text)
    assert not torch.equal(ours.text, text_of(xl, "a red cat", clip_skip=1).text)
    assert torch.equal(
        ours.added["text_embeds"], text_of(xl, "a red cat", clip_skip=1).added["text_embeds"]
    )


def test_a_clip_skip_beyond_the_layers_is_refused(core):
    with pytest.raises(PromptError, match="clip_skip is 9 and the text encoder 'text_encoder' has"):
        text_of(core, "a red cat", clip_skip=9)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a cat on the beach BREAK a dog in the garden", "a man"),
        (f"a cat, {FILLER}, a dog", ""),
        ("a cat and a dog", f"a man, {FILLER}"),
    ],
    ids=["break", "commas", "long negative"],
)
def test_the_second_subject_may_stand_in_the_second_chunk(
    core, pipeline, row, monkeypatch, prompt, negative
):
    """Positions, maps, losses, masks and predictions are those of one text a chunk."""
    sampler = row.sampler.model_copy(update={"prompt_syntax": "weighted"})
    row = replace(row, prompt=prompt, negative_prompt=negative, sampler=sampler)
    cat, dog = (f"{lora.trigger} {lora.subject}" for lora in row.concepts)
    texts = [prompt, prompt.replace("cat", cat), prompt.replace("dog", dog)]
    words = [
        [["cat"], ["dog"]],
        [cat.split(), ["dog"]],
        [["cat"], dog.split()],
    ]
    variants = [
        in_chunks(OracleVariant(text=text, words=(), active=active), own, pipeline.tokenizer)
        for text, own, active in zip(texts, words, (None, 0, 1), strict=True)
    ]
    monkeypatch.setattr(oracles.sequential, "oracle_variants", lambda *_: variants)
    monkeypatch.setattr(
        oracles.sequential,
        "encode",
        lambda pipeline, row, text, guided: encode_long(pipeline, row, text, 2, guided=guided),
    )
    expected = sequential_sample(pipeline, row)
    prepared = row_lanes(core.model, row)
    assert prepared.num_chunks == 2
    for v, variant in enumerate(variants):
        own = [
            found.own if v == concept + 1 else found.subject
            for concept, found in enumerate(prepared.positions[v])
        ]
        assert tuple(own) == variant.words
    found, trace = core.sample(row, keep_maps=True)
    assert relative(found, expected.latents) < 1e-10
    assert [float(loss) for loss in trace.losses] == pytest.approx(expected.losses, rel=1e-8)
    for ours, theirs in zip(trace.masks, expected.masks, strict=True):
        assert torch.equal(ours[0], theirs)


def test_a_longer_prompt_is_another_picture(core, row):
    first, second = (
        core.sample(replace(row, prompt=f"a cat and a dog {FILLER} {tail}"))[0]
        for tail in ("red", "blue")
    )
    assert relative(first, second) > 1e-6


def test_a_long_prompt_is_refused_where_the_row_says_so(core, row):
    sampler = row.sampler.model_copy(update={"long_prompts": "refuse"})
    with pytest.raises(LongTextError, match="2 chunks, and the text encoder reads 75 tokens at"):
        row_lanes(core.model, replace(row, prompt=f"a cat and a dog {FILLER}", sampler=sampler))


WORDS = ("red", "blue", "beach", "book,", "in the garden", "BREAK", "photo")


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_row_does_not_depend_on_its_batch(core, tiny_loras, data):
    """Chunks and emphasis are a row's own: alone or among others, its image is the same."""
    sampler = tiny_sampler(
        num_steps=1, guide_until_step=1, refine_steps=(), prompt_syntax="weighted"
    )
    rows = []
    for seed in range(3):
        around = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
        weight = data.draw(st.sampled_from(["1", "1.4", "0.3"]))
        long = FILLER if data.draw(st.booleans()) else ""
        prompt = f"{data.draw(around)} a (cat:{weight}) {long} and a dog {data.draw(around)}"
        rows.append(
            two_concept_row(
                tiny_loras,
                prompt=prompt,
                negative_prompt=data.draw(around),
                seed=seed,
                width=64,
                height=64,
                sampler=sampler,
            )
        )
    by_kind = {}
    for row in rows:
        by_kind.setdefault(row_lanes(core.model, row).kind, []).append(row)
    for group in by_kind.values():
        together, _ = core.sample(group)
        for slot, row in enumerate(group):
            alone, _ = core.sample(row)
            assert relative(together[slot : slot + 1], alone) < 1e-9


def test_a_trigger_has_its_subjects_emphasis_and_chunk(row):
    lora = row.concepts[0]
    marked = mark_prompt("a dog BREAK (cat:1.5)", [lora], {0}, "weighted")
    assert marked.text == f"a dog {lora.trigger} cat"
    assert marked.read.emphasised() == [(f"{lora.trigger} cat", 1.5)]
    assert marked.read.breaks == (len("a dog "),)


@pytest.mark.parametrize(
    ("prompt", "trigger", "emphasised"),
    [
        ("a (sks:1.5) cat", "sks", [("sks", 1.5)]),
        ("a (sks:1.5) (cat:0.8)", "sks", [("sks", 1.5), ("cat", 0.8)]),
        ("a (szn:1.2) style (cat:2)", "szn style cat", [("szn", 1.2), ("cat", 2.0)]),
        ("a cat (in hat:1.4)", "cat in hat", [("in hat", 1.4)]),
        ("a (cat:1.4)", "(sks:1.5)", [("sks", 1.5 * 1.4), ("cat", 1.4)]),
        ("a (SKS:1.5) cat", "(sks:0.5)", [("sks", 1.5)]),
    ],
)
def test_a_trigger_that_stands_in_the_prompt_keeps_its_own_emphasis(
    row, prompt, trigger, emphasised
):
    lora = replace(row.concepts[0], trigger=trigger)
    marked = mark_prompt(prompt, [lora], {0}, "weighted")
    found = marked.read.emphasised()
    assert [words for words, _ in found] == [words for words, _ in emphasised]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in emphasised])
    without = mark_prompt(prompt, [lora], (), "weighted")
    assert "cat" in without.text
    assert "sks" not in without.text.lower()
