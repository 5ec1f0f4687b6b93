"""``python -m benchmarks.page OUTPUT DOCS [--other TITLE OUTPUT ...]``: a benchmark's page.

Writes ``DOCS/NAME.md`` and ``DOCS/images/NAME.png`` for the sweep ``examples/emoji_NAME.yaml``
from its output and nothing else. What it says (who wins, by how much, at what cost) is derived from
the committed rows, so the page cannot fall behind the weights without its digests showing it.
``make benchmark`` and ``make ablations`` run the whole chain.
"""

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from benchmarks.ceiling import FILE_NAME
from benchmarks.fusing_cost import Fused, fused_adapters, fusing_table
from jobs.console.evaluated import evaluated, open_output
from pipelines.evaluation.bootstrap import Interval
from pipelines.evaluation.comparison import Comparison
from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.findings import findings
from pipelines.evaluation.results import METRICS, Metric
from pipelines.evaluation.tables import markdown, shown_interval
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs.publish import SHEET_NAME
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

NUM_LOSSES = 8
PICTURE_WIDTH_PX = 3200
OVER_SETS = ("presence_all", "identity_all", "doubled", "dino_apart", "dino_min")


Ceiling = Mapping[str, Mapping[str, float]]
"""Of ``benchmarks.ceiling``: a figure's name to its mean and both ends of its interval."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a page is made from.

    Attributes:
        name: Of its sweep, ``examples/emoji_NAME.yaml``, and of the page.
        title: Of the page.
        evaluation: Of the output.
        facts: (name, value) of what it was made with.
        ceiling: From ``benchmarks.ceiling``; None if it was not measured.
        others: Further outputs by title, each with its ceiling.
        fusions: What is known of the fused adapters of all outputs.
    """

    name: str
    title: str
    evaluation: Evaluation
    facts: Sequence[tuple[str, str]]
    ceiling: Ceiling | None = None
    others: Mapping[str, tuple[Evaluation, Ceiling | None]] = field(default_factory=dict)
    fusions: Sequence[Fused] = ()


def benchmark_page(benchmark: Benchmark) -> str:
    """Return the page as Markdown."""
    name, evaluation = benchmark.name, benchmark.evaluation
    parts = [
        f"# {benchmark.title}",
        f"Made by `make {name}` from [examples/emoji_{name}.yaml](../examples/emoji_{name}.yaml); "
        "do not edit. What each figure is and how far to trust it: [metrics.md](metrics.md).",
        f"![Some of its images, the methods side by side](images/{name}.png)",
        "## What it shows",
        "\n".join(f"- {sentence}" for sentence in findings(evaluation.comparison)),
        "Numbers in brackets are 95 % intervals over prompts; differences are the reference less "
        "the other method, on equal prompts and seeds. Seconds are of the machine as it was, with "
        "whatever else ran on it; [benchmarks/sampler.md](benchmarks/sampler.md) measures them "
        "side by side.",
        "## How far it carries to other LoRAs",
        _over_sets(evaluation.comparison),
    ]
    parts += _ceiling(benchmark.ceiling)
    for title, (other, other_ceiling) in benchmark.others.items():
        parts += [f"## {title}", _over_sets(other.comparison), *_ceiling(other_ceiling)]
    if benchmark.fusions:
        parts += ["## What fusing costs", fusing_table(benchmark.fusions)]
    parts += [
        "## LoRA sets where another method is better",
        _lost_sets(evaluation),
        "## The table",
        markdown(evaluation).strip(),
        "## What suffers beside what",
        _losses(evaluation),
        "## What it was made with",
        "\n".join(f"- {name}: {value}" for name, value in benchmark.facts),
    ]
    return "\n\n".join(parts) + "\n"


def _over_sets(comparison: Comparison) -> str:
    """Return means and the reference's lead with intervals over LoRA sets."""
    metrics = [
        metric
        for name in OVER_SETS
        for metric in METRICS
        if metric.name == name and any(name in arm.means_over_sets for arm in comparison.arms)
    ]
    if not metrics:
        return "No scores."
    of_arm = {difference.arm: difference for difference in comparison.differences}
    heads = [head for m in metrics for head in (m.label, f"{comparison.reference} less it")]
    lines = [
        f"| method | images | {' | '.join(heads)} |",
        "| --- | ---: |" + " ---: |" * len(heads),
    ]
    for arm in comparison.arms:
        cells: list[str] = []
        for metric in metrics:
            cells.append(shown_interval(arm.means_over_sets.get(metric.name), metric))
            difference = of_arm.get(arm.name)
            lead = difference and difference.by_metric_over_sets.get(metric.name)
            cells.append(_lead(lead, metric) if lead else "-")
        lines.append(f"| {arm.name} | {len(arm.keys):,} | {' | '.join(cells)} |")
    note = (
        "In brackets 95 % bootstrap intervals over LoRA sets, which say how far a figure carries "
        "to other LoRAs; a lead whose interval leaves 0 out is more than their choice explains. Of "
        "doubled less is better."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _lead(interval: Interval, metric: Metric) -> str:
    """Return the reference less the arm; differences are the arm less the reference."""
    digits = metric.digits
    return (
        f"{-interval.mean:+.{digits}f} [{-interval.high:+.{digits}f}, {-interval.low:+.{digits}f}]"
    )


def _ceiling(found: Ceiling | None) -> list[str]:
    if found is None:
        return []
    shown = [
        f"{words} in {each['mean']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"
        for name, words in (("presence_all", "all found"), ("identity_all", "all themselves"))
        for each in [found[name]]
    ]
    return [f"Ceiling, each LoRA alone in the same prompts and seeds: {', '.join(shown)}."]


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
    """Write the page; return the exit code: 0, or 1 if an output is not complete."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("output", help="of the sweep; its folder is called emoji_NAME")
    parser.add_argument("docs", type=Path)
    parser.add_argument("--title", default="The embedded benchmark")
    parser.add_argument("--reference", default="clora", help="method the others are compared with")
    parser.add_argument(
        "--other", nargs=2, action="append", default=[], metavar=("TITLE", "OUTPUT")
    )
    options = parser.parse_args(arguments)
    damages = Damages(note=lambda text: print(text, file=sys.stderr))
    opened = _complete(options.output, damages)
    others = {title: _complete(output, damages) for title, output in options.other}
    if opened is None or None in others.values():
        return 1
    storage, record = opened
    name = PurePosixPath(options.output).name.removeprefix("emoji_")
    page = benchmark_page(
        Benchmark(
            name=name,
            title=options.title,
            evaluation=evaluated(storage, record, damages, reference=options.reference),
            facts=made_with(storage, record),
            ceiling=_read_ceiling(storage),
            others={
                title: (
                    evaluated(*pair, damages, reference=options.reference),
                    _read_ceiling(pair[0]),
                )
                for title, pair in others.items()
                if pair is not None
            },
            fusions=[
                fused
                for pair in (opened, *others.values())
                if pair is not None
                for fused in fused_adapters(pair[0])
            ],
        )
    )
    if damages.left_out:
        print(f"{options.output} is damaged; repair it first", file=sys.stderr)
        return 1
    (options.docs / "images").mkdir(parents=True, exist_ok=True)
    sheet = Image.open(io.BytesIO(storage.read(SHEET_NAME)))
    sheet.thumbnail((PICTURE_WIDTH_PX, PICTURE_WIDTH_PX))
    sheet.save(options.docs / f"images/{name}.png", optimize=True)
    (options.docs / f"{name}.md").write_text(page)
    print(f"{options.docs / name}.md: {len(read_ledger(storage).made):,} images")
    return 0


def _complete(output: str, damages: Damages) -> tuple[Storage, Mapping[str, Any]] | None:
    """Return an output and its record; None, and a sentence, if rows are missing."""
    storage, record = open_output(output, damages)
    ledger = read_ledger(storage)
    if record["state"] != "finished" or ledger.failed or record["account"]["num_missing"]:
        print(f"{output} is not complete; compose it first", file=sys.stderr)
        return None
    return storage, record


def _read_ceiling(storage: Storage) -> Ceiling | None:
    return json.loads(storage.read(FILE_NAME)) if storage.exists(FILE_NAME) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
