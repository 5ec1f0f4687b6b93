"""``clora catalog``: render what changed since last time, then publish the whole as an edition.

Also ``python -m jobs.catalog SPEC``, which is what a cluster runs. What changed is never worked
out: a row's key covers its prompt, LoRA contents, model and settings, and rows whose key has an
image are not made again. So a schedule that was missed, doubled or overlaps itself does no harm.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from jobs.account_line import account_line
from jobs.catalog_spec import CatalogSpec, load_catalog, prepare_catalog
from jobs.compose import exit_code, open_log
from jobs.exit_code import (
    ALL_MADE,
    EXPECTED_ERRORS,
    INTERRUPTED,
    SOME_FAILED,
    code_of_error,
)
from jobs.run_request import run_request
from pipelines.edition import edition_table
from pipelines.editions import Published, publish_edition
from pipelines.failure_budget import TooManyFailuresError
from pipelines.ledger import read_ledger
from pipelines.lost_images import damaged_images
from pipelines.metrics_server import parse_address
from pipelines.output_table import read_rows
from pipelines.request import RunRequest
from pipelines.run import compose_rows
from pipelines.run_record import new_run_id
from pipelines.storage import Storage

__all__ = ["catalog"]

MAX_LISTED = 10

MakeRequest = Callable[..., RunRequest]


def catalog(
    path: str | Path,
    *,
    address: str | None = None,
    metrics_port: str | None = None,
    log_format: str = "text",
    make_request: MakeRequest = run_request,
) -> int:
    """Render and publish the catalog at ``path``: a spec, or a job file whose manifest it is.

    Args:
        path: The file.
        address: Of a Ray cluster; None for ``RAY_ADDRESS`` or this machine alone.
        metrics_port: ``PORT`` on loopback, or ``HOST:PORT``; None for none.
        log_format: ``text`` or ``json``.
        make_request: From a job to a request; tests give engines of their own.

    Returns:
        As ``compose``: 0 all made, 1 some have no image, 2 refused again, 130 interrupted.
    """
    read_at = datetime.now(UTC)
    try:
        spec = load_catalog(path)
        prepared = prepare_catalog(spec, place=str(path))
        request = replace(
            make_request(spec.job, prepared),
            run_id=new_run_id(read_at),
            metrics_at=None if metrics_port is None else parse_address(metrics_port),
        )
        with open_log(log_format, request.run_id or "") as progress:
            for problem in prepared.problems:
                progress.note(f"{problem}; its rows will fail")
            account = compose_rows(request, progress, address=address)
        print(account_line(account, spec.job.output))
        is_published = _publish(spec, request, read_at)
    except EXPECTED_ERRORS as error:
        print(f"{error}\nnothing was published", file=sys.stderr)
        return code_of_error(error)
    except TooManyFailuresError as error:
        print(f"{error}; nothing was published", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print(
            "stopped; nothing was published, and the same command goes on from what is committed",
            file=sys.stderr,
        )
        return INTERRUPTED
    code = exit_code(account)
    return SOME_FAILED if code == ALL_MADE and not is_published else code


def _publish(spec: CatalogSpec, request: RunRequest, read_at: datetime) -> bool:
    """Publish what is made, if enough is; return whether the catalog's edition is the latest."""
    rows = request.rows
    ledger = read_ledger(request.storage)
    digests = _image_digests(request.storage)
    for key in damaged_images(request.storage, ledger):
        # Damaged since the run looked: not published, and the next run restores it.
        digests.pop(key, None)
    missing = [row.row_id for row in rows if row.key not in digests]
    if len(missing) > spec.settings.may_miss:
        print(
            f"not published: {len(missing):,} rows have no image ({_listed(missing)}) and "
            f"may_miss is {spec.settings.may_miss:,}; the former edition stays the latest"
        )
        return False
    published = publish_edition(
        request.storage,
        edition_table(rows, digests),
        read_at=read_at.isoformat(timespec="microseconds"),
        run_id=request.run_id or "",
        num_missing=len(missing),
        keep=spec.settings.keep,
        note=lambda text: print(text, file=sys.stderr),
    )
    print(_described(published))
    return True


def _image_digests(storage: Storage) -> dict[str, str]:
    table = read_rows(storage, ["key", "image_sha256"])
    keys, digests = table["key"].to_pylist(), table["image_sha256"].to_pylist()
    return dict(zip(keys, digests, strict=True))


def _described(published: Published) -> str:
    number, changes = published.number, published.changes
    if published.outcome == "unchanged":
        return f"edition {number} is the latest already; nothing changed"
    if published.outcome == "outdated":
        return f"not published: edition {number} was read later than this run, and is the latest"
    lines = [f"edition {number} is the latest: {changes}"]
    for what in ("added", "changed", "removed"):
        names: Sequence[str] = getattr(changes, what)
        if names:
            lines.append(f"  {what:<8} {_listed(names)}")
    if published.dropped:
        lines.append(f"  dropped  edition {', '.join(map(str, published.dropped))}")
    return "\n".join(lines)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more:,} more" if more > 0 else "")


if __name__ == "__main__":
    from jobs.cli import main

    main(["catalog", *sys.argv[1:]])
