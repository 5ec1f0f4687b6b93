"""What ``clora loras convert`` says of the file that it has written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clora_core.recipe.lora.misplaced import counted_things
from manifests.text.text_rules import printable

MAX_LISTED = 10


def converted_text(out: Path, num_bytes: int, account: Mapping[str, Any]) -> str:
    """Return what a person reads: what was exact, what was cut, and how near that is.

    Args:
        out: The file.
        num_bytes: Its size.
        account: Of the conversion, as the metadata have it.
    """
    layers: Mapping[str, Mapping[str, Any]] = account["layers"]
    cut = {name: layer for name, layer in layers.items() if layer["is_cut"]}
    exact = [layer for layer in layers.values() if not layer["is_cut"]]
    kinds = ", ".join(account["kinds"])
    lines = [
        f"{printable(str(out))}: plain LoRA of {len(layers):,} layers, {num_bytes / 1e6:,.1f} MB, "
        f"from {printable(account['from'])} ({kinds})"
    ]
    if exact:
        lines.append(
            f"  exact:    {len(exact):,} layers were products of two factors and stay such, "
            f"{_ranks(exact)}{_rounding(exact)}"
        )
    if cut:
        lines.append(f"  by SVD:   {len(cut):,} layers, {_ranks(list(cut.values()))}")
    lines.append(
        f"  error:    {_error(account['error'])} in all (|D - D'| / |D|, D the difference of the "
        "weights)"
    )
    worst = sorted(cut.items(), key=lambda item: -item[1]["error"])
    for name, layer in worst[:MAX_LISTED]:
        lines.append(f"            {_error(layer['error'])} at rank {layer['rank']}: {name}")
    others = worst[MAX_LISTED:]
    if others:
        lines.append(
            f"            at most {_error(others[0][1]['error'])} in {len(others):,} others; the "
            "file's metadata (clora_converted) have each"
        )
    limits: Mapping[str, Any] = account["limits"]
    over = [
        each
        for each in cut.values()
        if each["rank"] == limits["max_rank"] and each["error"] > limits["max_error"] > 0
    ]
    if over:
        wanted = _error(limits["max_error"])
        lines.append(
            f"  note:     {len(over):,} layers would need more than rank {limits['max_rank']} for "
            f"an error of {wanted}; --max-error {wanted} alone sets no highest rank"
        )
    gone: Mapping[str, int] = account["left_out"]
    if gone:
        lines.append(f"  left out: {', '.join(counted_things(gone, list(gone)))}")
    if account["base_model"] is not None:
        lines.append(
            f"  holds on: {printable(account['base_model'])} alone, whose weights the difference "
            "depends on"
        )
    return "\n".join(lines)


def _ranks(layers: Sequence[Mapping[str, Any]]) -> str:
    ranks = [layer["rank"] for layer in layers]
    low, high = min(ranks), max(ranks)
    return f"rank {low}" if low == high else f"ranks {low} to {high}"


def _rounding(layers: Sequence[Mapping[str, Any]]) -> str:
    highest = max(layer["error"] for layer in layers)
    return f" (rounding {_error(highest)})" if highest else ""


def _error(value: float) -> str:
    return f"{value:.2g}"
