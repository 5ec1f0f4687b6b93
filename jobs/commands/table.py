"""``clora table``: methods compared, with intervals, as Markdown, CSV and JSON in the output."""

from jobs.console.evaluated import evaluated, open_output
from jobs.console.looking import looking
from manifests.places.place_names import joined
from pipelines.evaluation.tables import markdown, table_files
from pipelines.units.damages import Damages

TABLES_FOLDER = "tables"


@looking
def table(damages: Damages, output: str, *, clip_model: str | None = None) -> str:
    """Write and print the tables of ``output``.

    ``clip_model`` is a folder with a CLIP model, for scores of images against prompts.
    """
    storage, record = open_output(output, damages)
    evaluation = evaluated(storage, record, damages, clip_model=clip_model)
    files = table_files(evaluation)
    storage.put_all({f"{TABLES_FOLDER}/{name}": content for name, content in files.items()})
    return (
        f"{markdown(evaluation)}\nwritten to {joined(storage.uri, TABLES_FOLDER)}; scores.csv has "
        "the row key of every image (CSV is for spreadsheets: ' stands before what one would "
        "compute; exact texts are in rows/*.parquet)"
    )
