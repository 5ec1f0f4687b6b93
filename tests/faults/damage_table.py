"""The section on damaged files of ``docs/faults.md``: what every command does about each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Answer", "damage_section"]

HEAD = """
## Damaged files

What every command does about a file of an output that is not what was written: missing, empty, cut
in half, with one bit flipped (in the middle, of a unit in the keys of its rows), or with the
content of another file, of the same kind where there is one.
Every cell is a test on a small output, made and read by the real commands with a fake sampler.
The number is the exit code, and *named* means that the file's name is printed.

- *Not looked at*: the command has no use for the file.
- *Passed over*: it reads the file, finds it damaged, and does as well without.
- *Left out*: it leaves out what the file holds, and its exit code says so.
- *As not made*: rows of a unit that is missing are rows that were never made.
- *Not seen*: an image of the same size, where sizes are compared and bytes are not read.
- *Of a killed run*: the output is one of which the last run was killed while it made a row, and the
  line differs from that of a finished one.

Which damage each command promises to see:

- `verify` reads every byte of units, images, errors, plans, manifests, run records, leases and
  editions, of `latest.json`, and of the references in the output. A file that is missing altogether
  may never have been there, except an image, of which a row tells, and the edition that
  `latest.json` names.
- `verify --repair` sees the same. It restores images and errors from their units and writes
  `latest.json` again; all else is set aside in `damaged/`, and the next `compose` makes the rows of
  units again.
- `compose`, `retry` and `catalog` see every damaged unit and are refused until it is repaired. They
  restore images that are missing or of another size, errors and manifests. When they make rows,
  they see the lease and the plan of a run before them, and damaged units of the references, whose
  lost images they restore; where nothing is to be made they do not look at references. `catalog`
  sees a damaged newest edition, and publishes another after it.
- `plan` sees every damaged unit, also of the references, and is refused.
- `status` sees damaged units, run records and manifests, and images that are missing or of another
  size.
- `table` sees damaged units, also of the references, and run records.
- `report` sees these too, and images that are missing or of another size. It compares the bytes of
  an image when it makes its thumbnail.
- `export` sees damaged units and run records, and compares the bytes of every image. An image that
  is damaged as a file is taken from its unit.
- `gc` sees every damaged unit and is refused, because any image may be of one of its rows.
- `show` and `render` see that the image they are given is no picture any more.
- `validate` does not look into the output.
"""

_NOTHING = "-"
_MARK = "mark"


@dataclass(frozen=True)
class Answer:
    """What a command did about a damaged file.

    Attributes:
        command: As the user types it, without ``clora``.
        kind: Of the file.
        damage: What became of it.
        is_continued: Whether the output is one of which the last run was killed.
        phrase: What the command did, and the exit code; None if the damage changes nothing.
    """

    command: str
    kind: str
    damage: str
    is_continued: bool
    phrase: str | None


@dataclass
class _Line:
    """Kinds of files that a command treats alike, and what it does by damage."""

    kinds: list[str]
    cells: list[str]

    def is_like(self, cells: Sequence[str]) -> bool:
        """Return whether it is the same wherever there is something to compare."""
        pairs = zip(self.cells, cells, strict=True)
        return all(_NOTHING in pair or pair[0] == pair[1] for pair in pairs)

    @property
    def is_unread(self) -> bool:
        return all(cell == _NOTHING or cell.startswith("not looked at") for cell in self.cells)


def damage_section(answers: Iterable[Answer]) -> str:
    """Return the section: a table a command, a line for all files that it treats alike."""
    cells: dict[str, dict[tuple[bool, str], dict[str, str]]] = {}
    damages: dict[str, None] = {}
    for answer in answers:
        damages[answer.damage] = None
        by_kind = cells.setdefault(answer.command, {})
        line = by_kind.setdefault((answer.is_continued, answer.kind), {})
        line[answer.damage] = answer.phrase or _NOTHING
    tables = [
        f"### `clora {command}`\n\n{_table(_lines(by_kind, list(damages)), list(damages))}\n"
        for command, by_kind in cells.items()
    ]
    return "\n".join([HEAD, *tables])


def _lines(
    by_kind: Mapping[tuple[bool, str], Mapping[str, str]], damages: Sequence[str]
) -> list[_Line]:
    """Return the lines, those of killed runs only where they differ; what is not read is last."""
    lines: list[_Line] = []
    usual: dict[str, list[str]] = {}
    for (is_continued, kind), found in sorted(by_kind.items(), key=lambda item: item[0][0]):
        cells = [found.get(damage, _NOTHING) for damage in damages]
        if is_continued:
            if _deeds(usual.get(kind, ())) == _deeds(cells):
                continue
            # Its exit code is that of a run that is not finished.
            cells = [_without_code(cell) for cell in cells]
        else:
            usual[kind] = cells
        label = "attempts mark" if kind == _MARK else kind
        label += " of a killed run" if is_continued and kind in usual else ""
        like = next((line for line in lines if line.is_like(cells)), None)
        if like is None:
            lines.append(_Line([label], cells))
        else:
            like.kinds.append(label)
    return sorted(lines, key=lambda line: line.is_unread)


def _table(lines: Sequence[_Line], damages: Sequence[str]) -> str:
    rows = [f"| file | {' | '.join(damages)} |", "|---" * (len(damages) + 1) + "|"]
    for line in lines:
        label = ", ".join(line.kinds)
        if line.is_unread:
            label = "everything else" if len(lines) > 1 else "everything"
        rows.append(f"| {label} | {' | '.join(line.cells)} |")
    return "\n".join(rows)


def _deeds(cells: Iterable[str]) -> list[str]:
    return [re.sub(r" \(\d\)", "", cell) for cell in cells]


def _without_code(cell: str) -> str:
    """Return that a file is not looked at as if nothing else were wrong."""
    return "not looked at (0)" if cell.startswith("not looked at") else cell
