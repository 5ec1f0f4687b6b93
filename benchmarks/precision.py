"""How exact the sampler is on the embedded world: against the sequential reference, step by step.

    python -m benchmarks.precision [--out docs/benchmarks/precision.md]

In float64 our final latents must be the reference's to 1e-6, over a whole schedule with all its
refinement (preset ``emoji``: 30 steps, 27 latent updates). In float32 and bfloat16 the same rows
are followed step by step, to see where rounding starts to grow: masks have hard edges, so one
position that falls on the other side of a threshold is a visible jump and not a small error.
"""

import argparse
import logging
import platform
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import load_pipeline
from oracles.sequential import sequential_sample
from torch import Tensor

import emoji_world
from benchmarks.embedded import composed_row, concepts, styles
from clora_core.recipe.config import sampler_preset
from clora_core.recipe.row import Row
from clora_core.sampling import sampler

STEPS_SHOWN = (0, 1, 2, 5, 10, 15, 20, 29)
GROWN = 10.0
"""Times the error of the first step: from there on it counts as growing."""


@dataclass(frozen=True)
class Case:
    """A row to follow, and what it is called."""

    name: str
    row: Row


def cases() -> list[Case]:
    """Return two and three concepts, and two with a style."""
    config = sampler_preset("emoji")
    style = styles()[0]
    return [
        Case("K = 2", composed_row(concepts()[:2], config)),
        Case("K = 3", composed_row(concepts()[:3], config)),
        Case("K = 2 and a style", composed_row([*concepts()[:2], style], config)),
    ]


@contextmanager
def recorded_steps() -> Generator[list[Tensor]]:
    """Give the latents behind every solver step of our sampler."""
    seen: list[Tensor] = []
    make_solver = sampler.make_solver

    def recording(*arguments: Any) -> Any:
        solver = make_solver(*arguments)
        step = solver.step

        def record(*values: Any) -> Any:
            result = step(*values)
            seen.append(result.prev_sample.clone())
            return result

        solver.step = record
        return solver

    sampler.make_solver = recording
    try:
        yield seen
    finally:
        sampler.make_solver = make_solver


def steps_of(core: Core, row: Row) -> list[Tensor]:
    """Return our latents behind every step."""
    with recorded_steps() as seen:
        core.sample(row)
    return seen


def measure(case: Case, pipeline: Any, cores: dict[str, Core]) -> dict[str, list[float]]:
    """Return the relative error behind every step, by precision."""
    expected = sequential_sample(pipeline, case.row).latents_after_step
    return {
        dtype: [
            relative(found, true)
            for found, true in zip(steps_of(core, case.row), expected, strict=True)
        ]
        for dtype, core in cores.items()
    }


def growing_from(errors: Sequence[float]) -> str:
    """Return the first step whose error is ``GROWN`` times the first step's."""
    grown = [step for step, error in enumerate(errors) if error > GROWN * errors[0]]
    return str(grown[0]) if grown else "never"


def main() -> None:
    """Measure and print; write the document if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder = emoji_world.base_model_dir()
    pipeline = load_pipeline(folder, dtype=torch.float64)
    cores = {name: Core(folder, name) for name in ("float64", "float32", "bfloat16")}
    shown = " | ".join(f"step {step}" for step in STEPS_SHOWN)
    lines = [
        "# How exact the sampler is",
        "",
        "Made by `python -m benchmarks.precision` on the embedded world: preset `emoji` (30 steps, "
        "27 latent updates), latents behind a step against those of the sequential reference in "
        "float64, as relative error.",
        f"{platform.machine()}, torch {torch.__version__}.",
        "",
        f"| row | precision | {shown} | growing from |",
        "|---" * (3 + len(STEPS_SHOWN)) + "|",
    ]
    for case in cases():
        for dtype, errors in measure(case, pipeline, cores).items():
            cells = " | ".join(f"{errors[step]:.1e}" for step in STEPS_SHOWN)
            lines.append(f"| {case.name} | {dtype} | {cells} | {growing_from(errors)} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        f"“Growing from” is the first step with more than {GROWN:.0f} times the error of step 0.",
        "",
    ]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
