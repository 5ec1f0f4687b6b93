"""``clora report``: an output as a page with pictures, plots and provenance.

A static folder ``report/`` in the output: open ``index.html`` from disk, or from wherever the
output is copied to.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from jobs.console.evaluated import evaluated, open_output
from jobs.console.looking import looking
from manifests.places.place_names import joined, split_options
from pipelines.report.write import write_report
from pipelines.units.damages import Damages

_SHORT = 12


@looking
def report(damages: Damages, output: str, *, clip_model: str | None = None) -> str:
    """Write the report of ``output``.

    ``clip_model`` is a folder with a CLIP model, for scores of images against prompts.
    """
    storage, record = open_output(output, damages)
    evaluation = evaluated(storage, record, damages, clip_model=clip_model)
    title = PurePosixPath(split_options(storage.uri)[0]).name
    page = write_report(storage, evaluation, title=title, facts=_facts(record), damages=damages)
    return (
        f"{len(evaluation.results):,} images, {len(evaluation.failures):,} failed rows; "
        f"look at {joined(storage.uri, page)}"
    )


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    job, digests = record["job"], record["digests"]
    places: Mapping[str, str] = job.get("base_models", {})
    facts = [
        ("base model", _model(job.get("base_model", "unknown"), digests.get("base_model"))),
        *(
            (f"base model {name}", _model(places[name], digest))
            for name, digest in record.get("base_models", {}).items()
        ),
        ("DINO model", str(digests.get("dino"))[:_SHORT] if digests.get("dino") else "none"),
        ("references", str(job.get("scoring", {}).get("references", 0))),
        ("settings", str(job.get("sampler") or "the default preset")),
        ("latest run", f"{record['run_id']}, {record['state']}"),
    ]
    return [(name, value) for name, value in facts if value]


def _model(place: str, digest: str | None) -> str:
    return f"{PurePosixPath(place).name}, digest {str(digest)[:_SHORT]}"
