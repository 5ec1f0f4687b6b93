"""The long fuzz run, `make fuzz`: counts of how every case ended, or the first that ended wrong.

Cases depend on the seed and their number alone, so a case that failed is found again by both.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from adapters.cases import CASES

from fuzz.adapter_cases import read_corpus
from fuzz.adapter_files import fuzz_adapters
from fuzz.lora_headers import fuzz_headers
from fuzz.manifest_rows import FORMATS, fuzz_rows

ROWS_PER_FILE = 50
CHUNK = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--headers", type=int, default=1_000_000, help="damaged LoRA headers")
    parser.add_argument("--rows", type=int, default=100_000, help="mutated rows in each format")
    parser.add_argument("--adapters", type=int, default=1000, help="adapter files of every kind")
    parser.add_argument("--cases", type=int, default=len(CASES), help="of the corpus of adapters")
    parser.add_argument("--first", type=int, default=0, help="number of the first header or file")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    num_files = asked.rows * len(FORMATS) // ROWS_PER_FILE
    for what, run, first, total, chunk in (
        ("headers", fuzz_headers, asked.first, asked.headers, CHUNK),
        ("manifest files", fuzz_rows, 0, num_files, CHUNK),
        ("adapter files", fuzz_adapters, asked.first, asked.adapters, CHUNK // 10),
        ("cases", read_corpus, 0, asked.cases, CHUNK // 10),
    ):
        start, counts = time.monotonic(), Counter[str]()
        with tempfile.TemporaryDirectory(prefix="clora-fuzz-") as folder:
            for done in range(0, total, chunk):
                num_cases = min(chunk, total - done)
                counts += run(first + done, num_cases, seed=asked.seed, folder=Path(folder))
                seconds = time.monotonic() - start
                told = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
                print(
                    f"{done + num_cases:,} of {total:,} {what} in {seconds:,.0f} s: {told}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
