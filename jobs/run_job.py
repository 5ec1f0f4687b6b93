"""What ``clora compose`` and ``clora catalog`` share: a request is run and its progress shown."""

import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypedDict

from clora_core.recipe.errors import CloraError
from jobs.console.failures import failures_text
from jobs.console.json_progress import JsonProgress
from jobs.console.progress import open_progress
from manifests.text.problems import Problem
from pipelines.ledger.account import Account
from pipelines.ledger.failure_budget import TooManyFailuresError
from pipelines.ledger.run_record import new_run_id
from pipelines.metrics.server import parse_address
from pipelines.request import RunRequest
from pipelines.run import compose_rows
from pipelines.session.cluster_address import find_address


class RunOptions(TypedDict, total=False):
    """Where a run runs, and how it is watched; no part of what is made.

    Attributes:
        address: Of a Ray cluster; None for ``RAY_ADDRESS`` or this machine alone.
        metrics_port: ``PORT`` on loopback, or ``HOST:PORT``, to serve metrics at; None for none.
        log_format: ``text`` for people, ``json`` for one JSON object a line.
    """

    address: str | None
    metrics_port: str | None
    log_format: str


def run_job(
    request: RunRequest,
    problems: Iterable[Problem],
    *,
    address: str | None = None,
    metrics_port: str | None = None,
    log_format: str = "text",
) -> Account:
    """Make what is missing of a request, say why rows failed; return where its rows are.

    Args:
        request: What to make.
        problems: Of LoRA files whose rows will fail.
        address: As in ``RunOptions``.
        metrics_port: As there.
        log_format: As there.

    Raises:
        CloraError: As ``compose_rows``; or the cluster's address, or ``metrics_port``, is none.
    """
    run_id = request.run_id or new_run_id(datetime.now(UTC))
    find_address(address, os.environ)
    metrics_at = None if metrics_port is None else parse_address(metrics_port)
    is_json = log_format == "json"
    shown = nullcontext(JsonProgress(sys.stderr, run_id)) if is_json else open_progress(sys.stderr)
    with shown as progress:
        for problem in problems:
            progress.note(f"{problem}; its rows will fail")
        request = replace(request, run_id=run_id, metrics_at=metrics_at)
        try:
            account = compose_rows(request, progress, address=address)
        except CloraError as error:
            error.run_id = run_id
            if isinstance(error, TooManyFailuresError):
                error.add_note(failures_text(request))
            raise
        if account.num_failed:
            progress.note(failures_text(request))
        return account
