"""``clora catalog``: render what changed since last time, then publish the whole as an edition.

What changed is never worked out: a row's key covers its prompt, LoRA contents, model and settings,
and rows whose key has an image are not made again. So a schedule that was missed, doubled or
overlaps itself does no harm.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

from clora_core.recipe.errors import CloraError
from jobs.console.account_line import account_line
from jobs.exit_code import ALL_MADE, INTERRUPTED, SOME_FAILED, command
from jobs.job.catalog_spec import CatalogSpec, load_catalog, prepare_catalog
from jobs.job.run_request import run_request
from jobs.notes import note
from jobs.run_job import RunOptions, run_job
from manifests.text.wording import listed
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.lost_images import damaged_images
from pipelines.ledger.run_record import new_run_id
from pipelines.outputs.edition import edition_table
from pipelines.outputs.editions import Published, publish_edition
from pipelines.request import RunRequest
from pipelines.storage.storage import Storage
from pipelines.units.output_table import read_output_rows

MAX_LISTED = 10

MakeRequest = Callable[..., RunRequest]


@command()
def catalog(
    path: str | Path,
    *,
    make_request: MakeRequest = run_request,
    **options: Unpack[RunOptions],
) -> int:
    """Render and publish the catalog at ``path``: a spec, or a job file whose manifest it is.

    Args:
        path: The file.
        make_request: From a job to a request; tests give engines of their own.
        options: Where it runs, and how it is watched.

    Returns:
        As ``compose``: 0 all made, 1 some have no image, 2 refused again, 130 interrupted.
    """
    read_at = datetime.now(UTC)
    try:
        spec = load_catalog(path)
        prepared = prepare_catalog(spec, place=str(path))
        request = replace(make_request(spec.job, prepared), run_id=new_run_id(read_at))
        account = run_job(request, prepared.problems, **options)
        print(account_line(account, spec.job.output))
        is_published = _publish(spec, request, read_at)
    except CloraError as error:
        error.add_note("nothing was published")
        raise
    except KeyboardInterrupt:
        note("stopped; nothing was published; the same command continues from what is committed")
        return INTERRUPTED
    return ALL_MADE if account.is_complete and is_published else SOME_FAILED


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
        names = listed(missing, MAX_LISTED)
        print(
            f"not published: {len(missing):,} rows have no image ({names}) and may_miss is "
            f"{spec.settings.may_miss:,}; the former edition stays the latest"
        )
        return False
    published = publish_edition(
        request.storage,
        edition_table(rows, digests),
        read_at=read_at.isoformat(timespec="microseconds"),
        run_id=request.run_id or "",
        num_missing=len(missing),
        keep=spec.settings.keep,
        note=note,
    )
    print(_described(published))
    return True


def _image_digests(storage: Storage) -> dict[str, str]:
    table = read_output_rows(storage, ["key", "image_sha256"])
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
            lines.append(f"  {what:<8} {listed(names, MAX_LISTED)}")
    if published.dropped:
        lines.append(f"  dropped  edition {', '.join(map(str, published.dropped))}")
    return "\n".join(lines)
