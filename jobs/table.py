"""``clora table``: methods compared, with intervals, as Markdown, CSV and JSON in the output."""

import sys

from jobs.evaluated import NoOutputError, evaluated, open_output
from pipelines.evaluation.tables import markdown, table_files
from pipelines.ledger import LedgerError

__all__ = ["TABLES_FOLDER", "table"]

TABLES_FOLDER = "tables"


def table(output: str, *, clip_model: str | None = None) -> int:
    """Write and print the tables of ``output``; return the exit code: 0, or 2 if unreadable.

    ``clip_model`` is a folder with a CLIP model, for scores of images against prompts.
    """
    try:
        storage, record = open_output(output)
        evaluation = evaluated(storage, record, clip_model=clip_model)
    except (NoOutputError, LedgerError) as error:
        print(error, file=sys.stderr)
        return 2
    for name, content in table_files(evaluation).items():
        storage.put(f"{TABLES_FOLDER}/{name}", content)
    print(markdown(evaluation))
    print(f"written to {storage.uri}/{TABLES_FOLDER}; scores.csv has the row key of every image")
    return 0
