"""``clora compose`` on fakes: ``python away_driver.py JOB LOG [ray]``, ends with its exit code.

The command is the real one, with its sentences; the sampler and the scorer are not. Without ``ray``
the stages are in this process.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SAMPLER, SIDE_PX, FakeModelHostSource, FakeScorer
from inline_engine import run_inline

from jobs.commands import compose as compose_module
from jobs.job.run_request import run_request
from pipelines.planning.references import ReferenceSettings
from pipelines.request import RunRequest

NUM_REFERENCES = 5
"""Of each LoRA."""


def main(job: str, log: str, how: str = "inline") -> int:
    def make_request(*arguments: Any, **options: Any) -> RunRequest:
        asked = run_request(*arguments, **options)
        references = ReferenceSettings(
            num_references=NUM_REFERENCES, sampler=SAMPLER, side_px=SIDE_PX
        )
        return replace(
            asked,
            load_model_host=FakeModelHostSource(Path(log)),
            load_scorer=FakeScorer,
            references={asked.base_model_digest: references},
            dino_digest="d",
        )

    patch = pytest.MonkeyPatch()
    patch.setattr(compose_module, "run_request", make_request)
    if how == "inline":
        run_inline(patch)
    return compose_module.compose(job)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
