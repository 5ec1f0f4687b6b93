"""``python -m benchmarks.page OUT DOCS``: the benchmark's page, from its output and nothing else.

Writes ``DOCS/benchmark.md`` and ``DOCS/images/benchmark.png``. What it says (who wins, by how much,
at what cost) is derived from the committed rows, so the page cannot fall behind the weights without
its digests showing it. ``make benchmark`` runs the whole chain.
"""

import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.console.evaluated import evaluated, open_output
from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.findings import findings
from pipelines.evaluation.tables import markdown
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs.publish import SHEET_NAME
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

__all__ = ["benchmark_page", "main"]

NUM_LOSSES = 8
IMAGE_PLACE = "images/benchmark.png"
PICTURE_WIDTH_PX = 2000


def benchmark_page(evaluation: Evaluation, facts: Sequence[tuple[str, str]]) -> str:
    """Return the page as Markdown.

    Args:
        evaluation: Of the benchmark's output.
        facts: (name, value) of what it was made with.
    """
    parts = [
        "# The embedded benchmark",
        "Made by `make benchmark` from [examples/emoji_benchmark.yaml]"
        "(../examples/emoji_benchmark.yaml); do not edit. "
        "What each figure is and how far to trust it: [metrics.md](metrics.md).",
        f"![Some of its images, the methods side by side]({IMAGE_PLACE})",
        "## What it shows",
        "\n".join(f"- {sentence}" for sentence in findings(evaluation.comparison)),
        "Numbers in brackets are 95 % intervals over prompts; differences are the reference less "
        "the other method, on equal prompts and seeds. Seconds are of the machine as it was, with "
        "whatever else ran on it; [benchmarks/sampler.md](benchmarks/sampler.md) measures them "
        "side by side.",
        "## LoRA sets where another method is better",
        _lost_sets(evaluation),
        "## The table",
        markdown(evaluation).strip(),
        "## What suffers beside what",
        _losses(evaluation),
        "## What it was made with",
        "\n".join(f"- {name}: {value}" for name, value in facts),
    ]
    return "\n\n".join(parts) + "\n"


def _lost_sets(evaluation: Evaluation) -> str:
    comparison = evaluation.comparison
    cells = {(s.lora_set, s.arm): s.mean for s in comparison.sets if s.metric == "dino_min"}
    sets = sorted({lora_set for lora_set, _ in cells})
    lines: list[str] = []
    for lora_set in sets:
        mine = cells.get((lora_set, str(comparison.reference)))
        scores = [(mean, arm) for (each, arm), mean in cells.items() if each == lora_set]
        best, arm = max(scores)
        if mine is not None and best > mine:
            lines.append(f"| {lora_set} | {mine:.3f} | {best:.3f} | {arm} |")
    if not lines:
        return f"None of {len(sets)}: {comparison.reference} has the highest mean in each."
    head = f"| LoRA set | {comparison.reference} | best | by |\n| --- | ---: | ---: | --- |"
    return (
        f"{len(lines)} of {len(sets)}, by their mean DINO min (a mean of one set is of few prompts "
        f"and may be chance):\n\n{head}\n" + "\n".join(lines)
    )


def _losses(evaluation: Evaluation) -> str:
    """Return the LoRAs that lose most beside another one, under the reference."""
    name = evaluation.comparison.reference
    matrix = next((each for each in evaluation.interferences if each.arm == name), None)
    if matrix is None:
        return "No scores of single LoRAs."
    found = [
        (alone - beside, lora, neighbour, alone, beside)
        for row, lora in enumerate(matrix.loras)
        for column, neighbour in enumerate(matrix.loras)
        if row != column
        and (alone := matrix.scores[row][row]) is not None
        and (beside := matrix.scores[row][column]) is not None
    ]
    worst = sorted(found, reverse=True)[:NUM_LOSSES]
    lines = [
        f"| {lora} | {neighbour} | {alone:.3f} | {beside:.3f} |"
        for _, lora, neighbour, alone, beside in worst
    ]
    head = (
        f"The largest losses with {name}; the whole matrix is in the report.\n\n"
        "| LoRA | beside | alone | beside it |\n| --- | --- | ---: | ---: |"
    )
    return "\n".join([head, *lines])


def made_with(storage: Storage, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of an output that its page names."""
    rows = read_output_rows(
        storage, ["device", "versions_json", "seconds", "sampler_json"]
    ).to_pylist()
    devices = Counter(row["device"] for row in rows)
    versions = json.loads(Counter(row["versions_json"] for row in rows).most_common(1)[0][0])
    hours = sum(row["seconds"] for row in rows) / 3600
    digests = record["digests"]
    return [
        ("base model", f"`{digests['base_model'][:16]}`"),
        ("DINO model", f"`{str(digests['dino'])[:16]}`"),
        ("references a LoRA", str(record["job"]["scoring"]["references"])),
        ("images", f"{len(rows):,}, {hours:.1f} hours of sampling beside references"),
        ("machine", ", ".join(f"{name} ({count:,} images)" for name, count in devices.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the page; return the exit code: 0, or 1 if the output is not complete."""
    output, docs = arguments
    damages = Damages(note=lambda text: print(text, file=sys.stderr))
    storage, record = open_output(output, damages)
    ledger = read_ledger(storage)
    if record["state"] != "finished" or ledger.failed or record["account"]["num_missing"]:
        print(f"{output} is not complete; compose it first", file=sys.stderr)
        return 1
    page = benchmark_page(evaluated(storage, record, damages), made_with(storage, record))
    if damages.left_out:
        print(f"{output} is damaged; repair it first", file=sys.stderr)
        return 1
    folder = Path(docs)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sheet = Image.open(io.BytesIO(storage.read(SHEET_NAME)))
    sheet.thumbnail((PICTURE_WIDTH_PX, PICTURE_WIDTH_PX))
    sheet.save(folder / IMAGE_PLACE, optimize=True)
    (folder / "benchmark.md").write_text(page)
    print(f"{folder / 'benchmark.md'}: {len(ledger.made):,} images")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
