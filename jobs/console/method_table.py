"""What an output holds, one line per method: images, time, score."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

TABLE_COLUMNS = ["method", "seconds", "dino_min"]
"""Of the committed rows that the table is made from."""


def method_table(rows: pa.Table) -> str:
    """Return a table of text for committed rows (``TABLE_COLUMNS``); empty text for none."""
    if rows.num_rows == 0:
        return ""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        groups.setdefault(row["method"], []).append(row)
    lines = [("method", "images", "s/image", "DINO min")]
    for method, members in sorted(groups.items()):
        scores = [row["dino_min"] for row in members if row["dino_min"] is not None]
        score = f"{_mean(scores):.3f}" if scores else "-"
        seconds = _mean([row["seconds"] for row in members])
        lines.append((method, f"{len(members):,}", f"{seconds:.2f}", score))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
