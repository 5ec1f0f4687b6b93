"""Embeddings in catalogs and rows: their names, and what is said where they cannot act."""

from dataclasses import replace

import numpy as np
import pytest
from input_kit import kohya_tensors, row, safetensors_bytes

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.key import row_key
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.reading.embedded import EmbeddedWord
from jobs.commands.lora_files.inspect import inspect
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.table import lora_of, lora_values
from manifests.tables.readers import RawRow

MODEL = RowModel(
    digest="d0", side_px=64, lora_fit=LoraFit(model_width=768), sampler=SamplerConfig()
)

CATALOG = """
loras:
- {name: cat, uri: toy-cat.safetensors, subject: cat}
- {name: named, uri: toy-cat.safetensors, subject: cat, trigger: "small toy-cat"}
- {name: bad, uri: easynegative.safetensors, kind: style}
- {name: bundled, uri: bundled.safetensors, subject: dog, trigger: zqx ink}
- {name: twin, uri: twin.safetensors, kind: style}
- {name: copy, uri: "cat (1).safetensors", subject: cat}
- {name: odd, uri: "__cat__.safetensors", subject: cat}
- {name: copied, uri: "cat (1).safetensors", kind: style}
- {name: words, uri: words.safetensors, subject: cat, trigger: "<toy>"}
- {name: fox, uri: fox.safetensors, subject: cat, trigger: sks}
"""


def emb(count, width=768, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype("float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("embeddings")
    files = {
        "toy-cat": {"emb_params": emb(4)},
        "easynegative": {"emb_params": emb(8, seed=1)},
        "bundled": kohya_tensors(width=768)
        | {
            "bundle_emb.zqx.string_to_param.*": emb(2),
            "bundle_emb.ink.emb_params": emb(1)[0],
        },
        "cat (1)": {"emb_params": emb(2, seed=3)},
        "__cat__": {"emb_params": emb(2, seed=4)},
        "words": {"<toy>": emb(2, seed=5), "<ink>": emb(1, seed=6)[0]},
        "twin": {"EasyNegative": emb(3)},
        "xl": {"clip_l": emb(2), "clip_g": emb(2, 1280)},
        "fox": kohya_tensors(width=768),
    }
    for name, tensors in files.items():
        (root / f"{name}.safetensors").write_bytes(safetensors_bytes(tensors))
    (root / "catalog.yaml").write_text(CATALOG)
    return root


@pytest.fixture(scope="module")
def rules(folder):
    return RowRules(
        catalog=read_lora_catalog(str(folder / "catalog.yaml")),
        lora_files=LoraFiles(),
        base_models={"": MODEL},
        method="merge",
        dtype="float32",
    )


def checked(rules, **values):
    values = row(prompt="a cat and a dog", **values) if "prompt" not in values else row(**values)
    return check_rows([RawRow(place="m.jsonl", line=1, values=values)], rules, place="m.jsonl")


def problem_of(rules, **values):
    found = checked(rules, **values)
    assert not found.rows
    (problem,) = found.problems
    return f"{problem.field}: {problem.problem}"


def row_of(rules, **values):
    found = checked(rules, **values)
    assert not found.problems
    (made,) = found.rows
    return made


def test_a_concept_without_trigger_is_called_by_its_one_embedding(rules):
    (lora,) = row_of(rules, prompt="a cat", loras=["cat"]).loras
    assert lora.trigger == "toy-cat"
    assert lora.words == (EmbeddedWord("toy-cat", 4),)
    assert lora_of(lora_values(lora)) == lora


def test_a_trigger_that_holds_the_name_stays(rules):
    (lora,) = row_of(rules, prompt="a cat", loras=["named"]).loras
    assert lora.trigger == "small toy-cat"


def test_a_negative_embedding_acts_where_the_negative_prompt_names_it(rules):
    made = row_of(rules, prompt="a tree", loras=["bad"], negative_prompt="easynegative, blurry")
    assert made.loras[0].words == (EmbeddedWord("easynegative", 8),)


def test_an_embedding_that_no_text_names_is_a_problem(rules):
    text = problem_of(rules, prompt="a tree", loras=["bad"], negative_prompt="easynegatives")
    assert text == (
        "loras: LoRA 'bad' holds the embedding 'easynegative', which acts where its name is "
        "written, and it is written nowhere; write it in the prompt or the negative prompt (a "
        "style's trigger is in neither), or leave the LoRA out"
    )
    text = problem_of(rules, prompt="a cat", loras=[{"lora": "cat", "trigger": "sks"}])
    assert "write it in the trigger, the prompt or the negative prompt" in text


def test_a_lora_with_its_words_names_all_of_them(rules):
    (lora,) = row_of(rules, prompt="a dog", loras=["bundled"]).loras
    assert lora.words == (EmbeddedWord("ink", 1), EmbeddedWord("zqx", 2))
    row_of(rules, prompt="a dog", loras=[{"lora": "bundled", "weight": 0.5}])
    text = problem_of(rules, prompt="a dog", loras=[{"lora": "bundled", "trigger": "zqx"}])
    assert "holds the embedding 'ink'" in text


def test_a_file_of_two_words_of_diffusers_is_read(rules):
    (lora,) = row_of(rules, prompt="a cat, <ink>", loras=["words"]).loras
    assert lora.words == (EmbeddedWord("<ink>", 1), EmbeddedWord("<toy>", 2))
    assert "holds the embedding '<ink>'" in problem_of(rules, prompt="a cat", loras=["words"])


def test_two_embeddings_of_one_name_are_a_problem(rules):
    text = problem_of(rules, prompt="easynegative", loras=["bad", "twin"])
    assert text == (
        "loras: LoRAs 'bad' and 'twin' both hold the embedding 'EasyNegative', and a text cannot "
        "say which is meant; name one of them, or rename the file of one"
    )


def test_a_weight_on_embeddings_alone_is_a_problem(rules):
    text = problem_of(rules, prompt="a cat", loras=[{"lora": "cat", "weight": 0.8}])
    assert text == (
        "loras: LoRA 'cat' holds embeddings alone, and a weight has nothing to act on, got 0.8; "
        "leave the weight out, and set `prompt_syntax: weighted` and write (toy-cat:0.8) in a text "
        "for emphasis"
    )


def test_a_weight_of_0_leaves_the_lora_out(rules):
    text = problem_of(rules, prompt="a cat", loras=[{"lora": "cat", "weight": 0.0}])
    assert text == (
        "loras: LoRA 'cat' holds embeddings alone, and a weight has nothing to act on, got 0.0; "
        "leave the LoRA out"
    )


WEIGHTED = {"prompt_syntax": "weighted"}
RENAME = (
    "give it a name without such signs (an embedding without a name of its own is called what its "
    "file is)"
)


def test_a_name_with_brackets_is_escaped_where_they_are_emphasis(rules):
    made = row_of(rules, prompt="a cat", loras=["copy"], sampler=WEIGHTED)
    (lora,) = made.loras
    assert (lora.trigger, lora.words) == ("cat \\(1\\)", (EmbeddedWord("cat (1)", 2),))
    marked = mark_prompt(made.prompt, made.concepts, [0], "weighted")
    assert (marked.text, marked.read.weights) == ("a cat (1)", ())
    row_of(rules, prompt="a cat", loras=["cat"], sampler=WEIGHTED)


def test_a_plain_text_cannot_hold_a_name_with_brackets(rules):
    plain = (
        "a text under `prompt_syntax: plain` cannot hold this name, whose signs other tools read "
        f"as emphasis or chunks; set `prompt_syntax: weighted` under sampler, or {RENAME}"
    )
    assert problem_of(rules, prompt="a cat", loras=["copy"]) == (
        "loras: LoRA 'copy' has no trigger and is called by its embedding 'cat (1)', but " + plain
    )
    assert problem_of(rules, prompt="a cat", loras=[{"lora": "copy", "trigger": "sks"}]) == (
        "loras: LoRA 'copy' holds the embedding 'cat (1)', which acts where its name is written, "
        f"and {plain}, or leave the LoRA out"
    )


def test_a_name_that_no_text_can_hold_must_be_another(rules):
    for sampler in ({}, WEIGHTED):
        assert problem_of(rules, prompt="a cat", loras=["odd"], sampler=sampler) == (
            "loras: LoRA 'odd' has no trigger and is called by its embedding '__cat__', but no "
            f"text can hold this name, whose signs say something else; {RENAME}"
        )


def test_a_missing_name_is_shown_as_a_text_has_it(rules):
    text = problem_of(rules, prompt="a cat (1)", loras=["copied"], sampler=WEIGHTED)
    assert "write it as 'cat \\\\(1\\\\)' in the prompt or the negative prompt" in text
    row_of(rules, prompt="a cat \\(1\\)", loras=["copied"], sampler=WEIGHTED)


def test_without_guidance_no_negative_prompt_names_anything(rules):
    values = {"prompt": "a tree", "loras": ["bad"], "sampler": {"guidance_scale": 1.0}}
    text = problem_of(rules, negative_prompt="easynegative", **values)
    assert text == (
        "loras: LoRA 'bad' holds the embedding 'easynegative', which only the negative prompt "
        "names, and with a guidance_scale of 1 no negative prompt is sampled; raise "
        "guidance_scale, or leave the LoRA out"
    )
    text = problem_of(rules, **values)
    assert "write it in the prompt (a style's trigger is in no text), or leave" in text
    row_of(rules, **values | {"prompt": "an easynegative tree"})


def test_methods_that_fuse_refuse_embeddings_by_name(rules):
    text = problem_of(rules, loras=["bundled", "fox"], method="mix-of-show")
    assert text == (
        "method: 'mix-of-show' fuses no embeddings, and LoRA 'bundled' holds 'ink', 'zqx'; use "
        "'merge' or another method that fuses nothing"
    )


def test_an_embedding_of_another_family_is_an_unusable_file(rules):
    model = replace(MODEL, lora_fit=LoraFit(model_width=2048))
    (made,) = checked(replace(rules, base_models={"": model}), prompt="a cat", loras=["cat"]).rows
    assert "is made for SD1.x and its row's base model is SDXL" in (made.problem or "")


def test_the_name_is_in_the_key_and_its_vectors_in_the_digest(rules):
    made = row_of(rules, prompt="a cat", loras=["cat"])
    again = row_of(rules, prompt="a cat", loras=["cat"])
    assert made.key == again.key
    (lora,) = made.loras
    keys = {
        row_key(replace(made, loras=(replace(lora, words=words),)), dtype="float32")
        for words in ((), (EmbeddedWord("toy-cat", 4),), (EmbeddedWord("toy", 4),))
    }
    assert len(keys) == 3
    assert made.key in keys


def test_inspect_names_the_embeddings(folder, capsys):
    paths = [folder / f"{name}.safetensors" for name in ("toy-cat", "xl", "bundled")]
    assert inspect(paths) == 0
    lines = capsys.readouterr().out.splitlines()
    words = [line for line in lines if line.startswith("  word:") or "safetensors: " in line]
    assert [line.removeprefix(f"{folder}/") for line in words] == [
        "toy-cat.safetensors: embedding for SD1.x",
        "  word:     'toy-cat', 4 vectors for text_encoder (width 768)",
        "xl.safetensors: embedding for SDXL",
        "  word:     'xl', 2 vectors for text_encoder (width 768) and text_encoder_2 (width 1,280)",
        "bundled.safetensors: kohya LoRA for SD1.x",
        "  word:     'ink', 1 vector for text_encoder (width 768)",
        "  word:     'zqx', 2 vectors for text_encoder (width 768)",
    ]
    assert inspect(paths[:1], as_catalog=True) == 0
    assert '  trigger: "toy-cat"  # a style' in capsys.readouterr().out


def test_a_drafted_trigger_is_escaped_or_left_out(folder, tmp_path, capsys):
    copy = tmp_path / "cat (1).safetensors"
    copy.write_bytes((folder / "cat (1).safetensors").read_bytes())
    assert inspect([copy, folder / "__cat__.safetensors"], as_catalog=True) == 0
    drafted = capsys.readouterr().out
    assert '  trigger: "cat \\\\(1\\\\)"  # a style' in drafted
    assert "write it in a prompt; set prompt_syntax: weighted, or" in drafted
    assert '  # no text can hold the embedding\'s name "__cat__": give it another' in drafted
    (tmp_path / "catalog.yaml").write_text(drafted)
    catalog = read_lora_catalog(str(tmp_path / "catalog.yaml"))
    assert [entry.trigger for entry in catalog.values()] == ["cat \\(1\\)", None]
