"""``clora loras inspect``: what LoRA files are, or what is wrong with them. Loads no torch.

What can be used goes to standard output, what cannot to standard error; with ``as_catalog``
standard output is a catalog of what can be used, ready to be saved.
"""

from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from jobs.exit_code import ALL_MADE, BAD_INPUT, SOME_FAILED
from jobs.notes import note
from manifests.loras.about.catalog_entry import catalog_entry, catalog_name
from manifests.loras.about.report import LoraReport, lora_report
from manifests.loras.about.sizes import listed
from manifests.loras.embeddings import embedded_words
from manifests.loras.file import LoraFileInfo
from manifests.places.locations import StoreAwayError
from manifests.text.text_rules import printable


def inspect(paths: Sequence[str], *, as_catalog: bool = False) -> int:
    """Describe every file; return the exit code: 2 if one cannot be used, 1 if one is away, or 0.

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
    lines = [f"{printable(str(report.path))}: {_noun(info)} for {_family(report)}"]
    if info.num_layers:
        parts = ", ".join(f"{part} {count}" for part, count in report.parts.items())
        lines.append(f"  changes:  {info.num_layers:,} layers ({parts})")
    if report.ranks:
        lines.append(
            f"  rank:     {listed(report.ranks)}, alpha {listed(report.alphas)} "
            f"(scale {listed(report.scales)})"
        )
    lines += [f"  {word + ':':<9} {text}" for word, text in report.sizes]
    lines.append(f"  memory:   {report.memory}")
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


def _noun(info: LoraFileInfo) -> str:
    """Return what a file is called: its format, the kind of most of its layers, then the others."""
    if not info.kinds:
        return "embedding" if len(info.embeddings) == 1 else "embeddings"
    first, *others = info.kinds
    written = {"comfyui": "ComfyUI"}.get(info.format, info.format)
    return f"{written} {first}" + (f" with {' and '.join(others)}" if others else "")


def _family(report: LoraReport) -> str:
    info = report.info
    if info.family != "unknown":
        return info.family
    if not info.num_layers:
        widths = sorted({width for each in info.embeddings for width in each.widths.values()})
        return f"text encoders of width {' and '.join(f'{width:,}' for width in widths)}"
    width = info.cross_attention_width
    return "a base model that its layers do not say" + (
        f" (cross-attention width {width})" if width is not None else ""
    )
