"""Which rows have texts that are surely one chunk, so that no tokenizer has to read them whole."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.rows.bulk.own_values import OwnValues
from manifests.rows.bulk.templates import Template
from manifests.rows.text_reader import WordReader

TOO_LONG, BY_CHARACTERS, BY_TOKENS = 0, 1, 2
"""Whether a row's texts are surely one chunk, and why."""

_UNKNOWN = 2**31
"""More characters or tokens than any text has."""


def shortness(
    learnt: Sequence[tuple[Template, np.ndarray]], own: OwnValues, num_rows: int
) -> np.ndarray:
    """Return for each row whether its texts are surely one chunk; tokens are counted if need be."""
    prompts, negatives = own.prompts, own.negatives
    capacity, characters = np.full((2, num_rows), _UNKNOWN, np.int64)
    for template, members in learnt:
        capacity[members] = _UNKNOWN if template.reader is None else template.capacity
        if template.reader is None:
            characters[members] = 0
        elif template.trigger_characters is not None:
            characters[members] = template.trigger_characters
    has_reader = capacity < _UNKNOWN
    is_short = np.maximum(prompts.num_bytes + characters, negatives.num_bytes) <= capacity
    is_short &= (prompts.is_ascii & negatives.is_ascii) | ~has_reader
    found = np.where(is_short, BY_CHARACTERS, TOO_LONG)
    readers: dict[int, WordReader] = {}
    num_tokens = np.full(num_rows, _UNKNOWN, np.int64)
    for template, members in learnt:
        reader: Any = template.reader
        if reader is None or is_short[members].all() or template.trigger_tokens is None:
            continue
        readers[id(reader)] = reader
        num_tokens[members] = template.trigger_tokens
    if len(readers) == 1:  # of several models with a tokenizer each, rows are counted one by one
        (reader,) = readers.values()
        prompt = _num_tokens(prompts.cells, reader)
        negative = _num_tokens(negatives.cells, reader)
        if prompt is not None and negative is not None:
            fits = np.maximum(prompt + num_tokens, negative) <= capacity
            found[fits & ~is_short] = BY_TOKENS
    return found


def _num_tokens(texts: pa.Array, reader: WordReader) -> np.ndarray | None:
    """Return the tokens of the words of each text; None if they need not be the text's."""
    split = pc.call_function("split_pattern", [texts], pc.SplitPatternOptions(" "))
    words = split.flatten().dictionary_encode()
    counts = reader.word_tokens(words.dictionary.to_pylist())
    if counts is None:
        return None
    of_each = np.array(counts, np.int64)[np.asarray(words.indices)]
    ends = np.cumsum(np.asarray(pc.call_function("list_value_length", [split])))
    sums = np.concatenate([[0], np.cumsum(of_each)])[ends]
    return np.diff(sums, prepend=0)
