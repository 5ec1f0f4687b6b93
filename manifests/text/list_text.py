r"""Lists and structs as programs write them into a text cell, beside JSON.

A CSV file has no lists, so each writer has its own way, and this reads those that people meet:
Python's (``['a', 'b']``, by pandas), NumPy's without commas (``['a' 'b']``, by pandas and datasets
from Arrow), and DuckDB's without quotes (``[a, b]``, ``{'lora': a}``, ``{a=0.5}``). Nothing is
evaluated.
"""

import re
from typing import Any, NoReturn

MAX_CHARACTERS = 20_000
MAX_DEPTH = 20

_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_WORD = re.compile(r"[^,\[\](){}'\"]+")
_KEY_WORD = re.compile(r"[^,\[\](){}'\":=]+")
_WRAPPER = re.compile(r"(?:np\.|numpy\.)?(?:array|str_|float(?:16|32|64)|int(?:32|64)|Decimal)\(")
_DTYPE = re.compile(r"\s*,\s*dtype=[\w.'<>=|]+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_CONSTANTS = {
    "None": None, "NULL": None, "null": None, "nan": None, "NaN": None, "<NA>": None,
    "True": True, "true": True, "False": False, "false": False,
}  # fmt: skip
_ESCAPE = re.compile(r"\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


def load_list_text(text: str) -> Any:
    """Return the value of a cell that holds a list, tuple or struct; a null value is None.

    Raises:
        ValueError: None of these, a key given twice, too long, or nested too deeply.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS:,} characters")
    return _Reader(text).whole()


class _Reader:
    """One pass over a text, from its start; ``place`` is where it stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def whole(self) -> Any:
        """Return the value that the text is."""
        if self._peek() not in ("[", "(", "{"):
            self._fail("no list and no struct")
        value = self._value(0)
        if self._peek():
            self._fail("more than one value")
        return value

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self._fail("nested too deeply")
        opening = self._peek()
        if opening in ("[", "("):
            return self._list(depth, "]" if opening == "[" else ")")
        if opening == "{":
            return self._struct(depth)
        if opening in ("'", '"'):
            return self._quoted()
        wrapper = _WRAPPER.match(self.text, self.place)
        if wrapper is None:
            return _plain(self._word(_WORD))
        self.place = wrapper.end()
        value = self._value(depth + 1)
        dtype = _DTYPE.match(self.text, self.place)
        self.place = self.place if dtype is None else dtype.end()
        self._take(")")
        return _plain(value) if "Decimal" in wrapper.group() else value

    def _list(self, depth: int, closing: str) -> list[Any]:
        self.place += 1
        items: list[Any] = []
        while self._peek() != closing:
            if self._peek() in ("[", "(", "{", "'", '"') or _WRAPPER.match(self.text, self.place):
                items.append(self._value(depth + 1))
            else:
                items += _numbers_or_word(self._word(_WORD))
            if self._peek() == ",":
                self.place += 1
            elif self._peek() != closing and self._peek() not in ("[", "{", "'", '"'):
                self._fail(f"no , or {closing}")  # NumPy leaves the commas out
        self.place += 1
        return items

    def _struct(self, depth: int) -> dict[str, Any]:
        self.place += 1
        fields: dict[str, Any] = {}
        while self._peek() != "}":
            name = self._quoted() if self._peek() in ("'", '"') else self._word(_KEY_WORD)
            if name in fields:
                self._fail(f"{name[:100]!r} is given twice:")
            self._take("=" if self._peek() == "=" else ":")
            fields[name] = self._value(depth + 1)
            if self._peek() != "}":
                self._take(",")
        self.place += 1
        return fields

    def _quoted(self) -> str:
        found = _QUOTED.match(self.text, self.place)
        if found is None:
            self._fail("a quote that is not closed")
        self.place = found.end()
        return _ESCAPE.sub(_unescaped, found.group(1) or found.group(2) or "")

    def _word(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.place)
        if found is None or not found.group().strip():
            self._fail("no value")
        self.place = found.end()
        return found.group().strip()

    def _take(self, character: str) -> None:
        if self._peek() != character:
            self._fail(f"no {character}")
        self.place += 1

    def _peek(self) -> str:
        """Return the next character that is no space, "" at the end, and stand before it."""
        while self.place < len(self.text) and self.text[self.place].isspace():
            self.place += 1
        return self.text[self.place : self.place + 1]

    def _fail(self, what: str) -> NoReturn:
        raise ValueError(f"{what} at character {self.place + 1}")


def _numbers_or_word(word: str) -> list[Any]:
    """Return the numbers that NumPy writes with spaces between them, else the word as one item."""
    parts = word.split()
    are_numbers = len(parts) > 1 and all(map(_NUMBER.fullmatch, parts))
    return [_plain(part) for part in parts] if are_numbers else [_plain(word)]


def _plain(word: object) -> Any:
    """Return what a word without quotes says: a null, a truth value, a number, or the word."""
    if not isinstance(word, str):
        return word
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _NUMBER.fullmatch(word) is None or len(word) > 100:
        return word
    return int(word) if word.lstrip("+-").isdigit() else float(word)


def _unescaped(found: re.Match[str]) -> str:
    code = found.group(1) or found.group(2) or found.group(3)
    if code is not None:
        return chr(min(int(code, 16), 0x10FFFF))
    character = found.group(4)
    return _ESCAPED.get(character, f"\\{character}")
