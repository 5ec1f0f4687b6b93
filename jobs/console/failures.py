"""What a run says of the rows that failed, when it has come to an end."""

from shlex import quote

from manifests.rows.stored_rows import StoredRows
from pipelines.ledger.account import failures_among
from pipelines.ledger.failure_reasons import reason_lines
from pipelines.ledger.ledger import survey
from pipelines.request import RunRequest
from pipelines.storage.error import StorageError

TITLE = "why rows failed:"


def failures_text(request: RunRequest) -> str:
    """Return why rows of this manifest failed, a line for each reason."""
    asked = StoredRows.of(request.rows).tables()
    try:
        errors = failures_among(asked, survey(request.storage).failures).to_pylist()
    except StorageError as error:
        # The run has ended, and how it ended is still to be said.
        return f"why rows failed cannot be read now: {error}"
    rest = f"`clora status {quote(request.storage.uri)}` lists them"
    return "\n".join([TITLE, *reason_lines(errors, rest=rest)])
