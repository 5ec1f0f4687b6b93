"""A CLIP tokenizer of a few words, for tests.

What it doesn't know falls apart into pieces, down to bytes, as with the real one.
"""

import json
from pathlib import Path

from transformers import CLIPTokenizer

WORDS = (  # noqa: SIM905 - a list of words reads better in lines
    "a an the and at on in of man men cat cats dog bird book fox red blue black brown shie plu "
    "beach garden forest sks zwx szn style photo painting"
).split()
"""Words that are one token each."""

INNER_PIECES = ("black", "brown", "plu")
"""Beginnings of words: ``blackcat`` is black+cat, ``plushie`` is plu+shie, as in CLIP's own."""


def write_tokenizer(folder: Path, *, pad_token: str = "<|endoftext|>") -> None:  # noqa: S107
    """Write a CLIP tokenizer that knows ``WORDS`` and all bytes."""
    characters = list(_byte_characters().values())
    vocabulary = characters + [character + "</w>" for character in characters]
    merges: list[tuple[str, str]] = []
    wanted = [(word, "</w>") for word in WORDS] + [(piece, "") for piece in INNER_PIECES]
    # Longest first: else a short word's merge would split a longer word that contains it.
    for word, end in sorted(wanted, key=lambda pair: -len(pair[0])):
        pieces = [*word[:-1], word[-1] + end]
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            pieces = ["".join(merge), *pieces[2:]]
            if merge not in merges:
                merges.append(merge)
                vocabulary.append(pieces[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    merges_file.write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer(
        str(vocab_file), str(merges_file), model_max_length=77, pad_token=pad_token
    )
    tokenizer.save_pretrained(folder)


def _byte_characters() -> dict[int, str]:
    """GPT-2's table of printable stand-ins for the 256 bytes, which CLIP shares."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    others = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + place) for place, byte in enumerate(others)}
