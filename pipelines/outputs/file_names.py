"""Readable names for copies of images: a template with placeholders, filled in row by row.

A name must hold on every system that the copies may come to, so it is made for the strictest: no
character that Windows refuses or a shell hides, no reserved word, and short enough for a long path.
Whatever a row says in a placeholder stays within its part of the name.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clora_core.recipe.errors import CloraError
from manifests.text.wording import did_you_mean, listed, shown

DEFAULT_TEMPLATE = "{row_id}-{method}-{seed}.png"

PLACEHOLDERS = (
    "row_id", "method", "seed", "key", "width", "height", "prompt", "base_model",
)  # fmt: skip
"""Of every manifest. Its own columns are further ones; one of such a name is ``carried.key``."""

MAX_PART_BYTES = 200
"""Of one part of a name. File systems take 255, a path on Windows 260 characters in all."""

PROMPT_CHARACTERS = 60
ENDING = ".png"

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_REFUSED = re.compile(r'[<>:"/\\|?*]')
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|(COM|LPT)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
_OTHER_ENDINGS = (".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif")


class FileNameError(CloraError):
    """A template of names cannot be used; the message names what is wrong and the way out."""


@dataclass(frozen=True, kw_only=True)
class NameTemplate:
    """A template that was checked.

    Attributes:
        parts: Between slashes; all but the last are folders.
        base_model: Of rows that name none.
    """

    parts: tuple[str, ...]
    base_model: str

    def name(self, row: Mapping[str, Any]) -> str:
        """Return the name of a row of ``asked_rows.ASKED``."""
        carried = json.loads(row["carried_json"] or "{}")
        base_model = carried.pop("base_model", self.base_model)
        values = {_placeholder(name): value for name, value in carried.items()}
        values |= {name: row[name] for name in PLACEHOLDERS if name != "base_model"}
        values |= {"base_model": base_model, "prompt": _shortened(row["prompt"] or "")}
        *folders, file = (_filled(part, values) for part in self.parts)
        names = [_safe(folder) for folder in folders]
        return "/".join([*names, _safe(file, ending=ENDING)])


def name_template(text: str, columns: Sequence[str], *, base_model: str) -> NameTemplate:
    """Return a template that was checked.

    Args:
        text: E.g. ``{method}/{row_id}.png``; the ending may be left out.
        columns: The manifest's own.
        base_model: Of rows that name none.

    Raises:
        FileNameError: It has an unknown placeholder, a lone brace, or another ending.
    """
    known = tuple(dict.fromkeys([*PLACEHOLDERS, *map(_placeholder, columns)]))
    unknown = [name for name in _PLACEHOLDER.findall(text) if name not in known]
    if unknown:
        hints = "; ".join(f"{{{name}}}: {did_you_mean(name, known)}" for name in unknown)
        raise FileNameError(
            f"--name {shown(text)} has unknown placeholders: {hints} There are "
            f"{', '.join(f'{{{name}}}' for name in known)}"
        )
    if set("{}") & set(_PLACEHOLDER.sub("", text)):
        raise FileNameError(
            f"--name {shown(text)} has a brace without its other one; placeholders are written "
            "{row_id}"
        )
    if text.lower().endswith(_OTHER_ENDINGS):
        raise FileNameError(
            f"--name {shown(text)} has another ending than {ENDING}; images are copied as the PNG "
            f"files that they are, so end it with {ENDING}"
        )
    bare = text[: -len(ENDING)] if text.lower().endswith(ENDING) else text
    if not bare.rpartition("/")[2]:
        raise FileNameError(f"--name {shown(text)} names no file; try {DEFAULT_TEMPLATE}")
    return NameTemplate(parts=tuple(bare.split("/")), base_model=base_model)


def without_case(name: str) -> str:
    """Return what two names share if a file system without case takes them for one."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def clashes_sentence(clashes: Sequence[tuple[str, str, str]], count: int) -> str:
    """Return the sentence about rows that get the name of another row.

    Args:
        clashes: (name, row id, the other's row id) of some.
        count: Of all.
    """
    lines = [f"{name} for rows {other} and {row_id}" for name, row_id, other in clashes]
    return (
        f"--name gives {count:,} row(s) the name of another row: {listed(lines, 3)}; add "
        "{row_id} or {key} to it"
    )


def _placeholder(column: str) -> str:
    """Return the placeholder of the manifest's own column, named as in ``images.csv``."""
    return f"carried.{column}" if column in PLACEHOLDERS else column


def _filled(part: str, values: Mapping[str, Any]) -> str:
    return _PLACEHOLDER.sub(lambda match: _text(values.get(match[1])), part)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _shortened(prompt: str) -> str:
    """Return the beginning of a prompt, up to the end of a word."""
    text = " ".join(prompt.split())
    if len(text) <= PROMPT_CHARACTERS:
        return text
    return text[: PROMPT_CHARACTERS + 1].rpartition(" ")[0] or text[:PROMPT_CHARACTERS]


def _safe(text: str, ending: str = "") -> str:
    """Return one part of a name as every system takes it."""
    plain = unicodedata.normalize("NFC", text)
    plain = "".join("_" if unicodedata.category(c)[0] == "C" else c for c in plain)
    plain = _REFUSED.sub("_", plain).strip()
    room = MAX_PART_BYTES - len(ending)
    plain = plain.encode()[:room].decode(errors="ignore").rstrip(" .")
    if plain.startswith("."):
        plain = f"_{plain[1:]}"
    stem, dot, rest = plain.partition(".")
    if _RESERVED.fullmatch(stem.strip()):
        plain = f"{stem.strip()}_{dot}{rest}"
    return f"{plain or '_'}{ending}"
