"""A folder that could not be loaded, or would make wrong pictures, is refused before it is used."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clora_core.diffusion.model import load_base_model
from emoji_world import base_model_dir, dino_dir
from manifests.weights.base_model import inspect_base_model
from manifests.weights.model_config import BaseModelProblem
from manifests.weights.model_layers import model_layers
from manifests.weights.scorer_files import scorer_findings

UNET = "diffusion_pytorch_model"
WEIGHTS = {"unet": UNET, "vae": UNET, "text_encoder": "model"}
Change = Callable[[Path], object]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_model_dir(), tmp_path / "base"))


def problem(folder: Path) -> str:
    with pytest.raises(BaseModelProblem) as caught:
        inspect_base_model(folder)
    return str(caught.value)


def in_pieces(folder: Path, *, mark: str = "") -> None:
    """Write the UNet's weights as two files."""
    whole = folder / f"unet/{UNET}.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = [f"{UNET}{mark}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {key: names[number % 2] for number, key in enumerate(sorted(tensors))}
    for name in names:
        own = {key: tensors[key] for key, place in places.items() if place == name}
        save_file(own, folder / "unet" / name, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"unet/{UNET}.safetensors.index{mark}.json").write_text(json.dumps(index))


def as_variants(folder: Path) -> None:
    for name, stem in WEIGHTS.items():
        path = folder / name / f"{stem}.safetensors"
        path.rename(path.with_name(f"{stem}.fp16.safetensors"))


def as_pickles(folder: Path) -> None:
    for name, stem in {**WEIGHTS, "text_encoder": "pytorch_model"}.items():
        (path,) = (folder / name).glob("*.safetensors")
        torch.save(load_file(path), folder / name / f"{stem}.bin")
        path.unlink()


@pytest.mark.parametrize(
    "change", [as_variants, as_pickles, lambda folder: in_pieces(folder, mark=".fp16")]
)
def test_what_passes_is_loaded_with_the_same_weights(base: Path, change: Change):
    before = inspect_base_model(base)
    change(base)
    after = inspect_base_model(base)
    assert after.digest != before.digest  # of the files that are loaded
    there, here = load_base_model(base_model_dir()).components, load_base_model(base).components
    for name, module in there.items():
        states = module.state_dict(), here[name].state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    if change is not as_pickles:
        assert model_layers(base).shapes == model_layers(base_model_dir()).shapes


def removed(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def renamed(name: str, other: str) -> Change:
    return lambda folder: (folder / name).rename(folder / other)


def without_piece(folder: Path) -> None:
    in_pieces(folder)
    (folder / f"unet/{UNET}-00002-of-00002.safetensors").unlink()


def without_index(folder: Path) -> None:
    in_pieces(folder)
    (folder / f"unet/{UNET}.safetensors.index.json").unlink()


def cut_off(folder: Path) -> None:
    path = folder / f"vae/{UNET}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def pointer(folder: Path) -> None:
    (folder / "text_encoder/model.safetensors").write_text("version https://git-lfs.github.com\n")


def two_variants(folder: Path) -> None:
    as_variants(folder)
    path = folder / f"vae/{UNET}.fp16.safetensors"
    path.rename(path.with_name(f"{UNET}.non_ema.safetensors"))


def two_variants_of_one(folder: Path) -> None:
    path = folder / f"vae/{UNET}.safetensors"
    shutil.copy(path, path.with_name(f"{UNET}.fp16.safetensors"))
    path.rename(path.with_name(f"{UNET}.non_ema.safetensors"))


def without_part(folder: Path) -> None:
    path = folder / "model_index.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"text_encoder": [None, None]}))


WHOLE = f"{UNET}.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (removed(f"unet/{WHOLE}"), "unet has no weights that are loaded .* there is nothing: down"),
        (renamed(f"unet/{WHOLE}", f"unet/{UNET}.ckpt"), f"there is {UNET}.ckpt: download"),
        (removed("text_encoder/model.safetensors"), "text_encoder has no weights that are loaded"),
        (without_piece, "unet lacks 1 of the 2 pieces of its weights that .*00002-of-00002.safe"),
        (without_index, "unet has no weights that are loaded .* there is .*-00001-of-00002"),
        (cut_off, "is truncated: its header describes"),
        (pointer, "is a git-lfs pointer and not the weights"),
        (two_variants, "weights in more than one variant .*unet as fp16, vae as non_ema"),
        (two_variants_of_one, "vae has weights of the variants fp16, non_ema and none without one"),
        (without_part, "names no text_encoder, and Stable Diffusion 1.x, 2.x and XL have unet"),
        (removed("text_encoder/config.json"), "text_encoder has no config.json; download"),
        (removed("scheduler/scheduler_config.json"), "scheduler has no scheduler_config.json"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_a_problem(base: Path, change: Change, words: str):
    change(base)
    assert re.search(words, problem(base))


def test_everything_that_is_missing_is_told_at_once(base: Path):
    (base / f"unet/{WHOLE}").unlink()
    (base / "scheduler/scheduler_config.json").unlink()
    shutil.rmtree(base / "tokenizer")
    said = problem(base)
    assert all(f"{base / name} has no " in said for name in ("unet", "scheduler", "tokenizer"))


def changed(name: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Change:
    """Return what rewrites a JSON file of the tokenizer; the other vocabulary goes."""

    def rewrite(folder: Path) -> None:
        path = folder / "tokenizer" / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        if name == "vocab.json":
            (folder / "tokenizer/tokenizer.json").unlink()

    return rewrite


def without_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()


def without_merges(folder: Path) -> None:
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n")


def emptied(folder: Path) -> None:
    (folder / "tokenizer/tokenizer.json").write_bytes(b"")


def numbered_anew(values: dict[str, Any]) -> dict[str, Any]:
    return {token: number + 100 for token, number in values.items()}


def only_words(values: dict[str, Any]) -> dict[str, Any]:
    return {token: number for token, number in values.items() if len(token) > 5}


def without_end(values: dict[str, Any]) -> dict[str, Any]:
    return {name: number for name, number in values.items() if name != "<|endoftext|>"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            without_vocabulary,
            "tokenizer has no vocabulary: neither tokenizer.json nor vocab.json an",
        ),
        (without_merges, "vocab.json is no whole vocabulary: it has 609 tokens and 0 merges"),
        (emptied, "tokenizer.json cannot be read"),
        (changed("vocab.json", lambda _: {}), "is no whole vocabulary: it has 0 tokens and"),
        (changed("vocab.json", only_words), "0 of the 52 that spell any word are there"),
        (changed("tokenizer.json", lambda _: {"model": {"type": "BPE"}}), "it has 0 tokens and 0"),
        (
            changed("vocab.json", numbered_anew),
            "has a token of number 708, and the text encoder kn",
        ),
        (
            changed("vocab.json", without_end),
            "has no token '<|endoftext|>', which is the tokenizer's eos_token",
        ),
        (
            changed("tokenizer_config.json", lambda _: {"model_max_length": 2}),
            "should have a whole number greater than 2 as model_max_length",
        ),
        (changed("tokenizer_config.json", lambda _: {"model_max_length": "77"}), "got '77'"),
        (changed("tokenizer_config.json", lambda _: {"model_max_length": 9.5}), "got 9.5"),
    ],
)
def test_a_tokenizer_without_its_vocabulary_is_a_problem(base: Path, change: Change, words: str):
    change(base)
    assert words in problem(base)


@pytest.mark.parametrize(
    "settings",
    [{}, {"model_max_length": None}]
    + [{"model_max_length": length} for length in (9, 24, 77, 10**30, 1e30)],
)
def test_a_tokenizer_may_have_any_length_because_the_smaller_one_is_read(
    base: Path, settings: dict[str, Any]
):
    changed("tokenizer_config.json", lambda _: settings)(base)
    assert inspect_base_model(base)


def test_either_form_of_a_vocabulary_will_do(base: Path):
    (base / "tokenizer/tokenizer.json").rename(base / "aside")
    assert inspect_base_model(base)
    (base / "aside").rename(base / "tokenizer/tokenizer.json")
    for name in ("vocab.json", "merges.txt"):
        (base / "tokenizer" / name).unlink()
    assert inspect_base_model(base)


def test_the_second_tokenizer_of_a_model_is_checked_too(base: Path):
    index = json.loads((base / "model_index.json").read_text())
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(base / name, base / f"{name}_2")
        index[f"{name}_2"] = index[name]
    (base / "model_index.json").write_text(json.dumps(index))
    assert inspect_base_model(base)
    for file in (base / "tokenizer_2").iterdir():
        file.unlink()
    assert problem(base).startswith(f"{base / 'tokenizer_2'} has no vocabulary")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _folder: None, None),
        (removed("preprocessor_config.json"), "has no preprocessor_config.json, which says how"),
        (removed("config.json"), "has no config.json"),
        (removed("model.safetensors"), "has no weights that are loaded (model.safetensors"),
        (renamed("model.safetensors", "pytorch_model.bin"), None),
        (renamed("model.safetensors", "model.fp16.safetensors"), "variant fp16 alone"),
        (renamed("preprocessor_config.json", "processor_config.json"), None),
    ],
)
def test_a_scorer_that_cannot_be_loaded_is_a_problem(tmp_path: Path, change: Change, words: Any):
    folder = Path(shutil.copytree(dino_dir(), tmp_path / "dino"))
    change(folder)
    said = ". ".join(scorer_findings(folder))
    assert (words in said) if words else not said
