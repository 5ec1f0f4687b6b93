"""Whether a CLIP tokenizer's files hold a vocabulary that its text encoder was trained with.

Without one the libraries load a tokenizer of two tokens and say nothing: every word becomes the
same token, and every picture shows the same.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import ascii_lowercase
from typing import Any, cast

from manifests.text.wording import shown
from manifests.weights.model_config import BaseModelProblem, model_config

_AGAIN = "download the folder again"
_SPELLED = tuple(letter + end for letter in ascii_lowercase for end in ("", "</w>"))
"""What any word can be spelled with, inside it and at its end."""

_NUM_ENDS = 2
"""Tokens that every window has: start and end."""

_SPECIAL = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}


def tokenizer_findings(folder: Path, encoder: Path) -> list[str]:
    """Return what is wrong with the tokenizer in ``folder``, a sentence each.

    Args:
        folder: Of a ``CLIPTokenizer``.
        encoder: Folder of its text encoder.
    """
    try:
        vocabulary, num_merges, place = _vocabulary(folder)
        settings = _optional(folder, "tokenizer_config.json")
        special = _optional(folder, "special_tokens_map.json") | settings
        added = _optional(folder, "added_tokens.json")
        numbers = _optional(encoder, "config.json")
    except BaseModelProblem as error:
        return [str(error)]
    if not numbers:
        return []  # nothing to compare with, which is said of the encoder
    vocabulary |= {token: value for token, value in added.items() if type(value) is int}
    vocabulary |= _added(cast("object", settings.get("added_tokens_decoder")))
    size = numbers.get("vocab_size", 49408)
    num_known = size if type(size) is int else 49408
    findings: list[str] = []
    unspelled = [piece for piece in _SPELLED if piece not in vocabulary]
    if unspelled or 2 * len(vocabulary) < num_known or num_merges == 0:
        findings.append(
            f"{place} is no whole vocabulary: it has {len(vocabulary):,} tokens and {num_merges:,} "
            f"merges, {len(_SPELLED) - len(unspelled)} of the {len(_SPELLED)} that spell any word "
            f"are there, and the text encoder knows {num_known:,} tokens; {_AGAIN}"
        )
    for name, usual in _SPECIAL.items():
        token = _text(special.get(name)) or usual
        if token not in vocabulary:
            findings.append(
                f"{place} has no token {token[:100]!r}, which is the tokenizer's {name}; {_AGAIN}"
            )
    largest = max(vocabulary.values(), default=0)
    if largest >= num_known:
        findings.append(
            f"{place} has a token of number {largest:,}, and the text encoder knows {num_known:,} "
            f"(vocab_size in {encoder / 'config.json'}), counted from 0; use the tokenizer that it "
            "was trained with"
        )
    return [*findings, *_length_findings(folder, settings, numbers)]


def _length_findings(
    folder: Path, settings: Mapping[str, Any], numbers: Mapping[str, Any]
) -> list[str]:
    """Return why prompts cannot be cut into windows; nothing if they can.

    A window has as many tokens as the smaller of ``model_max_length`` and the text encoder's own
    length, so a tokenizer that gives none, or a longer one, will do.
    """
    longest = numbers.get("max_position_embeddings", 77)
    given = settings.get("model_max_length")
    is_whole = type(given) is int and given > _NUM_ENDS
    is_beyond = type(given) is float and type(longest) is int and given > longest
    if given is None or is_whole or is_beyond:
        return []
    return [
        f"{folder / 'tokenizer_config.json'} should have a whole number greater than {_NUM_ENDS} "
        "as model_max_length, the tokens of a prompt with its start and its end, or none, "
        f"got {shown(given)}; take it out, or {_AGAIN}"
    ]


def _vocabulary(folder: Path) -> tuple[dict[str, int], int, Path]:
    """Return tokens with their numbers, how many merges there are, and the file that has them.

    Raises:
        BaseModelProblem: There is none, or it cannot be read.
    """
    if (folder / "tokenizer.json").exists():
        whole = model_config(folder, "tokenizer.json")
        model = whole.get("model")
        parts = cast("dict[str, Any]", model) if isinstance(model, dict) else {}
        tokens = _numbered(parts.get("vocab")) | _listed(whole.get("added_tokens"))
        merges = parts.get("merges")
        num_merges = len(cast("list[object]", merges)) if isinstance(merges, list) else 0
        return tokens, num_merges, folder / "tokenizer.json"
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise BaseModelProblem(
            f"{folder} has no vocabulary: neither tokenizer.json nor {' and '.join(missing)}; "
            f"without it every word is one and the same token: {_AGAIN}"
        )
    tokens = _numbered(model_config(folder, "vocab.json"))
    try:
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BaseModelProblem(f"{folder / 'merges.txt'} cannot be read: {error}") from error
    num_merges = sum(len(line.split()) == 2 and not line.startswith("#version") for line in lines)
    return tokens, num_merges, folder / "vocab.json"


def _optional(folder: Path, name: str) -> dict[str, Any]:
    return dict(model_config(folder, name)) if (folder / name).exists() else {}


def _numbered(value: object) -> dict[str, int]:
    items = cast("dict[str, object]", value).items() if isinstance(value, dict) else ()
    return {token: number for token, number in items if type(number) is int}


def _listed(value: object) -> dict[str, int]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return _contents((_mapping(item).get("id"), item) for item in items)


def _added(value: object) -> dict[str, int]:
    items = _mapping(value).items()
    return _contents((int(key), item) for key, item in items if key.isdecimal())


def _contents(numbered: Iterable[tuple[object, object]]) -> dict[str, int]:
    pairs = ((_text(item), number) for number, item in numbered)
    return {text: number for text, number in pairs if text and type(number) is int}


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """Return a token, which is written as a text or as an object with one."""
    text = _mapping(value).get("content", value)
    return text if isinstance(text, str) else None
