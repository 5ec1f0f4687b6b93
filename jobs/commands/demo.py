"""``clora demo``: a small job on the embedded world, offline, for the first five minutes.

It writes an ordinary job file and manifest into the output folder and runs them like any other, so
what to try next is to edit those two and run the command that it names.
"""

from pathlib import Path

from emoji_world import example_manifest
from jobs.commands.compose import compose
from jobs.console.method_table import TABLE_COLUMNS, method_table
from jobs.exit_code import ALL_MADE, command
from pipelines.outputs.publish import SHEET_NAME
from pipelines.storage.storage import open_storage
from pipelines.units.output_table import read_output_rows

JOB_NAME = "job.yaml"
MANIFEST_NAME = "manifest.parquet"

JOB_TEXT = """\
# A job on the embedded world. Change it, or the manifest, and run
#     clora compose job.yaml
# again: only what is new is made.
manifest: manifest.parquet
output: .
base_model: emoji-world
loras: emoji-world
scoring: {references: 5}
resources: {rows_per_unit: 8}
"""


@command()
def demo(out: Path) -> int:
    """Run the demo in the folder ``out``; return the exit code of ``compose``."""
    job_path = out / JOB_NAME
    if not job_path.exists():
        _lay_out(out)
    code = compose(job_path)
    if code == ALL_MADE:
        print(_what_next(out))
    return code


def _lay_out(out: Path) -> None:
    manifest = example_manifest("demo")
    files = {MANIFEST_NAME: manifest.read_bytes(), JOB_NAME: JOB_TEXT.encode()}
    open_storage(str(out)).put_all(files)


def _what_next(out: Path) -> str:
    table = method_table(read_output_rows(open_storage(str(out)), TABLE_COLUMNS))
    return f"""
{table}

look at   {out / SHEET_NAME}
images    {out / "images"}, and as a data set: datasets.load_dataset("{out}")
the job   {out / JOB_NAME} with {out / MANIFEST_NAME}

try next  clora status {out}
          clora demo --out {out}      (again: makes nothing, says so)
          clora plan {out / JOB_NAME}
          clora compose {out / JOB_NAME}   after you changed either file"""
