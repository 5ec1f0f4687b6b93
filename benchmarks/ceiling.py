"""What a method could reach at most: each LoRA alone, in the very prompts of a benchmark.

    python -m benchmarks.ceiling out/emoji_benchmark

For every prompt, LoRA set and seed of the output, each LoRA is switched on alone in the whole
prompt (its neighbours are drawn by the base model), and the embedded world's judge looks for it.
The ceiling of a picture is that all its LoRAs are found so, or are all clearly themselves. Writes
``ceiling.json`` beside the output's tables.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from emoji_world import presence_file
from emoji_world.measures.composed import instances_of
from emoji_world.measures.renderer import Renderer
from emoji_world.presence import figures_of, judge, load_presence
from pipelines.evaluation.bootstrap import mean_interval
from pipelines.storage.storage import open_storage
from pipelines.units.output_table import read_output_rows

FILE_NAME = "ceiling.json"

_COLUMNS = ["prompt", "loras", "seed", "width", "height"]


def ceiling(pictures: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return shares of pictures whose LoRAs all pass alone, with intervals over LoRA sets.

    Args:
        pictures: Prompt, names of LoRAs, seed, width and height of each.
    """
    net, renderer = load_presence(presence_file()), Renderer("cpu")
    alone = [(index, name) for index, each in enumerate(pictures) for name in each["loras"]]
    rows = [
        renderer.row(
            pictures[index]["prompt"],
            [name],
            pictures[index]["seed"],
            "single",
            width=pictures[index]["width"],
            height=pictures[index]["height"],
        )
        for index, name in alone
    ]
    verdicts = judge(net, renderer.render(rows))
    groups = [" + ".join(each["loras"]) for each in pictures]
    shares: dict[str, dict[str, float]] = {}
    for figure in ("presence_all", "identity_all"):
        passed = [1.0] * len(pictures)
        for (index, name), verdict in zip(alone, verdicts, strict=True):
            passed[index] *= figures_of(verdict, instances_of([name]))[figure]
        interval = mean_interval(zip(groups, passed, strict=True))
        if interval is None:
            raise ValueError("no pictures")
        shares[figure] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return shares


def main(arguments: Sequence[str]) -> int:
    """Measure one output's ceiling; return 0."""
    [output] = arguments
    storage = open_storage(output)
    seen: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in read_output_rows(storage, _COLUMNS).to_pylist():
        names = [lora["name"] for lora in row["loras"] if lora["kind"] == "concept"]
        picture = {**row, "loras": names}
        seen[(row["prompt"], tuple(names), row["seed"], row["width"], row["height"])] = picture
    measured = ceiling([seen[key] for key in sorted(seen)])
    storage.put(FILE_NAME, json.dumps(measured).encode())
    print(f"{output}: {measured}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
