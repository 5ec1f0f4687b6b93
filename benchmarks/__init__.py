"""Benchmarks: ratios measured side by side in one run, against the oracles of the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
