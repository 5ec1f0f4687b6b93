"""A catalog entry for a LoRA file, with what its metadata tell filled in.

A draft for a person to read: metadata are a stranger's text, so a wrong noun is corrected here and
not found out in ten thousand pictures. Every value is written in double quotes, which YAML reads as
nothing but a text.
"""

import json
import re
from collections.abc import Collection, Sequence

from clora_core.recipe.reading.syntax import written
from manifests.loras.about.report import LoraReport
from manifests.loras.embeddings import embedded_words
from manifests.loras.file_stem import file_stem
from manifests.text.text_rules import one_line

_NOT_IN_NAMES = re.compile(r"[^\w.+\-]+")
MAX_NAME_CHARACTERS = 60


def catalog_name(report: LoraReport, *, taken: Collection[str] = ()) -> str:
    """Return a name for the LoRA that rows can use and that none of ``taken`` is."""
    title = one_line(report.notes.title or file_stem(str(report.path)), max_characters=200)
    plain = _NOT_IN_NAMES.sub("-", title).strip("-.")[:MAX_NAME_CHARACTERS] or "lora"
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


def catalog_entry(report: LoraReport, *, name: str) -> str:
    """Return the YAML list item of the LoRA, which ``read_lora_catalog`` takes as it is.

    Without a noun in the metadata the entry is a style, which needs none; a comment says so.

    Args:
        report: Of the file.
        name: What rows shall call it, from ``catalog_name``.
    """
    notes = report.notes
    lines = [f"- name: {_quoted(name)}", f"  uri: {_quoted(str(report.path))}"]
    if notes.subject is not None:
        lines.append(f"  subject: {_quoted(notes.subject)}  # from its training folder")
    else:
        lines.append("  kind: style  # no noun in its metadata; for a concept name its subject")
    words = embedded_words(report.info.embeddings, str(report.path))
    if words:
        lines += _named_words([word.name for word in words], is_style=notes.subject is None)
        if notes.trigger is not None:
            lines.append(f"  # its metadata says: {_visible(notes.trigger)}")
    elif notes.trigger is not None:
        lines.append(f"  trigger: {_quoted(notes.trigger)}")
    elif notes.tags:
        words = ", ".join(word for word, _ in notes.tags[:5])
        lines.append(f"  # trigger candidates: {_visible(words)}")
    if notes.license is not None:
        lines.append(f"  license: {_quoted(notes.license)}")
    lines.append(f"  sha256: {report.info.file_sha256}")
    return "\n".join(lines) + "\n"


def _named_words(names: Sequence[str], *, is_style: bool) -> list[str]:
    """Return the trigger that names all embeddings of a file."""
    remarks = ["a style's is in no text: write it in a prompt"] if is_style else []
    texts = [written(name, "weighted") for name in names]
    if None in texts:
        bad = names[texts.index(None)]
        return [f"  # no text can hold the embedding's name {_quoted(bad)}: give it another"]
    trigger = " ".join(text for text in texts if text is not None)
    if written(trigger, "plain") is None:
        remarks.append("set prompt_syntax: weighted, or give the embedding a name without signs")
    return [f"  trigger: {_quoted(trigger)}" + (f"  # {'; '.join(remarks)}" if remarks else "")]


def _quoted(text: str) -> str:
    return _visible(json.dumps(text, ensure_ascii=False))


def _visible(text: str) -> str:
    """Escape, as YAML's quoted texts do, what YAML refuses or a person would not see."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
