"""Values as other programs write them: the forms of lists, seeds and prompts that people meet.

Each takes the place of a good value, so that what the forms mean together is tried as well as
each alone.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

SEEDS = (
    0, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63), float(2**53 - 1), float(2**53),
    1e300, "42", "1.0", "7,0", "7,000", "1e3", "1.23E+18", "1_000", "٣", "-1", "+7", " 7 ", "0x7",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "9" * 400, True, None,
)  # fmt: skip

PROMPT_SYNTAX = (
    "(cat)", "((a cat))", "(a cat:1.3)", "(cat:-0.5)", "(cat:", "[a dog]", "[cat:dog:0.5]",
    "[cat|dog]", " BREAK ", " AND ", " AND_SALT ", "<lora:cat:0.8>", "<lora:x>", "<lyco:x:1>",
    "{a cat|a dog}", "{2$$a|b}", "__animal__", r"\(", r"\)", r"\\", "embedding:x", "<x>", "\n",
    "\r\n", "\t", ":1.3)", "))", "((((", "a cat", "a dog", "++", "(cat)++", '("a cat").and()',
    ".blend(1, 0.5)", "a cat and a dog, " * 40,
)  # fmt: skip

SAMPLERS = (
    {"prompt_syntax": "weighted"}, {"prompt_syntax": "plain"}, {"prompt_syntax": None},
    {"long_prompts": "refuse"}, {"long_prompts": "chunk"}, {"clip_skip": 2}, {"clip_skip": -1},
    {"clip_skip": 2, "prompt_syntax": "weighted", "num_steps": 30}, {"num_steps": 30}, {},
)  # fmt: skip

INDEX_NAMES = ("", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__")

_NAMES = ("cat", "dog", "ink", "violet-cat", "a b", "it's", "cat:0.5", "dog:0,8", "1", "null")


def prompt(source: random.Random) -> str:
    """Return a prompt in the syntax of one user interface or another."""
    return "".join(source.choices(PROMPT_SYNTAX, k=source.randrange(1, 6)))


def loras(source: random.Random) -> Any:
    """Return the LoRAs of a row as a list, a text or a struct."""
    names = source.sample(_NAMES, source.randrange(4))
    structs = [{"lora": name, "weight": source.choice((0.5, 1, None, "x"))} for name in names]
    columns = {"lora": names, "weight": [source.choice((0.5, None)) for _ in names]}
    if source.random() < 0.2:
        columns["weight"] = columns["weight"][1:]
    made = source.choice((names, structs, columns, dict.fromkeys(names, 0.5), tuple(names)))
    return source.choice(_WRITERS)(made)


def index(source: random.Random, number: int) -> Any:
    """Return what the index of a row may be."""
    return number if source.random() < 0.98 else source.choice((None, "x", -1, 0.5, "0"))


def _duckdb(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"'{name}': {_duckdb(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_duckdb, value)) + "]"
    return "NULL" if value is None else str(value)


def _numpy(value: Any) -> str:
    return str(np.array(value, dtype=object)) if isinstance(value, list | tuple) else repr(value)


def _separated(value: Any) -> str:
    return ", ".join(map(str, value))


_WRITERS: tuple[Callable[[Any], Any], ...] = (
    lambda value: value, repr, json.dumps, _duckdb, _numpy, _separated,
)  # fmt: skip
