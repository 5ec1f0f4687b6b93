"""``clora loras inspect``: what LoRA files are, or what is wrong with them. Loads no torch.

What can be used goes to standard output, what cannot to standard error; with ``as_catalog``
standard output is a catalog of what can be used, ready to be saved.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from jobs.exit_code import ALL_MADE, BAD_INPUT, SOME_FAILED
from jobs.notes import note
from manifests.loras.about.catalog_entry import catalog_entry, catalog_name
from manifests.loras.about.report import LoraReport, lora_report
from manifests.loras.embeddings import embedded_words
from manifests.places.locations import StoreAwayError
from manifests.text.text_rules import printable


def inspect(paths: Sequence[str], *, as_catalog: bool = False) -> int:
    """Tell about every file; return the exit code: 2 if one cannot be used, 1 if one is away, or 0.

    Args:
        paths: LoRA files, peft's folders, and hub names (``owner/name@revision:file``).
        as_catalog: Write a catalog in YAML instead. Its relative paths are those given here, so
            save it where the command was run.
    """
    code = ALL_MADE
    names: list[str] = []
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            report = lora_report(path)
        except LoraFileError as error:
            note(str(error))
            code = BAD_INPUT
            continue
        except StoreAwayError as error:
            note(str(error))
            code = max(code, SOME_FAILED)
            continue
        if as_catalog:
            if not names:
                print("loras:")
            names.append(catalog_name(report, taken=names))
            print(catalog_entry(report, name=names[-1]), end="")
        else:
            print(described(report, same_as=seen.setdefault(report.fingerprint, report.path)))
    return code


def described(report: LoraReport, *, same_as: Path) -> str:
    """Return what a file is, in a few lines that a person reads.

    Args:
        report: Of the file.
        same_as: The first file that was seen with this LoRA; the file itself if it is the first.
    """
    info, notes = report.info, report.notes
    kind = {"locon": "LoCon", "comfyui": "ComfyUI"}.get(info.format, info.format)
    parts = ", ".join(f"{part} {count}" for part, count in report.parts.items())
    noun = "embedding" if info.format == "embedding" else f"{kind} LoRA"
    lines = [f"{printable(str(report.path))}: {noun} for {_family(report)}"]
    if info.num_layers:
        lines += [
            f"  changes:  {info.num_layers:,} layers ({parts})",
            f"  rank:     {_listed(report.ranks)}, alpha {_listed(report.alphas)} "
            f"(scale {_listed(report.scales)})",
        ]
    lines += _embeddings(report)
    if notes.title or notes.base_model:
        made = [f"trained on {notes.base_model}" if notes.base_model else "", notes.title or ""]
        lines.append("  says:     " + ", ".join(text for text in reversed(made) if text))
    if notes.license:
        lines.append(f"  licence:  {notes.license}")
    if notes.trigger or notes.subject:
        noun = f" for {notes.subject!r}" if notes.subject else ""
        lines.append(f"  trigger:  {notes.trigger!r}{noun}")
    if notes.tags:
        words = ", ".join(f"{word} ({count:,})" for word, count in notes.tags)
        lines.append(f"  captions: {words}")
    lines += [
        f"  identity: {info.digest}",
        f"  hashes:   {', '.join(f'{name} {digits}' for name, digits in report.hashes.items())}",
        f"  sha256:   {info.file_sha256}",
    ]
    if same_as != report.path:
        lines.append(f"  note:     the same LoRA as {printable(str(same_as))}")
    return "\n".join(lines)


def _embeddings(report: LoraReport) -> list[str]:
    words = embedded_words(report.info.embeddings, str(report.path))
    return [
        f"  word:     {printable(repr(word.name))}, {word.num_vectors} "
        f"vector{'s' if word.num_vectors > 1 else ''} for "
        + " and ".join(f"{name} (width {width:,})" for name, width in sorted(each.widths.items()))
        for word, each in zip(words, report.info.embeddings, strict=True)
    ]


def _family(report: LoraReport) -> str:
    width = report.info.cross_attention_width
    if report.info.family == "unknown":
        return "a base model that its layers don't tell" + (
            f" (cross-attention width {width})" if width is not None else ""
        )
    return report.info.family


def _listed(values: Sequence[float]) -> str:
    texts = ["by pattern" if math.isnan(value) else f"{value:g}" for value in values]
    if len(texts) <= 4:
        return ", ".join(texts)
    return f"{texts[0]} to {texts[-1]} ({len(texts)} different)"
