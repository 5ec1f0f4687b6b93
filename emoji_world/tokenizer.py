"""A CLIP tokenizer with a vocabulary of some hundred tokens.

Every word of the captions is one token, any other word falls back to its letters (bytes), so a
prompt can say anything and only costs more positions. The merges are chains: for each word the
pieces that the merges so far leave are joined from left to right, and ``build_tokenizer`` proves
that every word of the vocabulary comes out whole.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_POSITIONS = 24
"""Positions of a prompt, start and end tokens included."""

_START, _END = "<|startoftext|>", "<|endoftext|>"


def _byte_alphabet() -> list[str]:
    """Return the printable characters that byte-level BPE writes the 256 bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + n for n in range(256 - len(printable))]
    return [chr(code) for code in printable + others]


def _split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        pairs = list(itertools.pairwise(pieces))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        pieces[at : at + 2] = ["".join(best)]
    return pieces


def merges_for(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return BPE merges in rank order that make each word one token.

    Raises:
        ValueError: A later word's merges split an earlier one; the message names it.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in sorted(words, key=lambda word: (len(word), word)):
        pieces = _split(word, ranks)
        while len(pieces) > 1:
            ranks[pieces[0], pieces[1]] = len(ranks)
            pieces = _split(word, ranks)
    for word in words:
        if len(_split(word, ranks)) != 1:
            raise ValueError(f"{word!r} does not come out as one token; reorder the words")
    return list(ranks)


def build_tokenizer(words: Sequence[str], triggers: Sequence[str], folder: Path) -> Any:
    """Write and load a CLIPTokenizer whose known words are ``words`` and ``triggers``.

    Args:
        words: Words of the captions, lower case.
        triggers: Reserved tokens such as ``<l1>``, matched as they are.
        folder: Where vocab.json, merges.txt and what transformers adds are written.

    Returns:
        The loaded ``transformers.CLIPTokenizer``.
    """
    from transformers import AddedToken, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    merges = merges_for(words)
    alphabet = _byte_alphabet()
    tokens = alphabet + [letter + "</w>" for letter in alphabet]
    tokens += ["".join(pair) for pair in merges] + [_START, _END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps(vocabulary, ensure_ascii=False))
    merges_file.write_text(
        "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)
    )
    tokenizer = CLIPTokenizer(
        vocab=str(vocabulary_file),
        merges=str(merges_file),
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=MAX_POSITIONS,
    )
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in triggers])
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)
