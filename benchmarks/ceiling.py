"""What a method could reach at most: each LoRA alone, in the very prompts of a benchmark.

    python -m benchmarks.ceiling out/emoji_benchmark

For every prompt, LoRA set and seed of the output, each LoRA is switched on alone in the whole
prompt (its neighbours are drawn by the base model), and the embedded world's judge looks for it.
The ceiling of a picture is that all its LoRAs are found so. Writes ``ceiling.json`` beside the
output's tables.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from emoji_world import presence_file
from emoji_world.measures.renderer import Renderer
from emoji_world.presence import judge, load_presence
from pipelines.evaluation.bootstrap import mean_interval
from pipelines.storage.storage import open_storage
from pipelines.units.output_table import read_output_rows

FILE_NAME = "ceiling.json"

_COLUMNS = ["prompt", "loras", "seed", "width", "height"]


def ceiling(pictures: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Return share of pictures whose LoRAs are all found alone, with its interval over LoRA sets.

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
    found = [True] * len(pictures)
    for (index, name), verdict in zip(alone, verdicts, strict=True):
        found[index] &= bool(verdict.present[name] > 0.5)
    groups = [" + ".join(each["loras"]) for each in pictures]
    interval = mean_interval(zip(groups, map(float, found), strict=True))
    if interval is None:
        raise ValueError("no pictures")
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "num_pictures": interval.num_values,
    }


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
