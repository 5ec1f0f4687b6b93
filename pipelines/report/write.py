"""The report of an output, written into its folder ``report/``; writing it again replaces it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.tables import table_files
from pipelines.ledger.ledger import survey
from pipelines.ledger.lost_images import damaged_images
from pipelines.report.attention import MAPS_FOLDER
from pipelines.report.lines import Line, report_arms, report_lines
from pipelines.report.page import assets, index_script, page_html
from pipelines.report.provenance import DETAIL_COLUMNS, detail_chunks
from pipelines.report.thumbnails import write_thumbnails
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

REPORT_FOLDER = "report"


def write_report(
    storage: Storage,
    evaluation: Evaluation,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    damages: Damages,
) -> str:
    """Write the report; return the name of its page.

    Args:
        storage: The output.
        evaluation: Of it.
        title: Stands over everything.
        facts: (name, value) of how it was made.
        damages: Gets what is damaged; a lost image is said to be in its place on the page.
    """
    comparison = evaluation.comparison
    arms = report_arms(
        [arm.name for arm in comparison.arms], evaluation.results, evaluation.failures
    )
    images = read_output_rows(storage, IMAGE_COLUMNS, skip=damages.skip).to_pylist()
    suspects = set(damaged_images(storage, survey(storage)))
    lost = write_thumbnails(storage, images, damages, suspects=suspects)
    lines = report_lines(evaluation.results, evaluation.failures, arms, lost=lost)
    keys = ordered_keys(lines, arms)
    failures = {error["key"]: error for error in evaluation.failures}
    with_maps = {PurePosixPath(name).stem for name in storage.list(MAPS_FOLDER, ".webp")}
    details = read_output_rows(storage, DETAIL_COLUMNS, skip=damages.skip)
    chunks = detail_chunks(keys, details, failures, with_maps=with_maps)
    _write_chunks(storage, chunks)
    files = {
        **assets(),
        **table_files(evaluation),
        "data/index.js": index_script(lines, arms, comparison.reference).encode(),
        "index.html": page_html(
            evaluation, title=title, facts=facts, lines=lines, arms=arms
        ).encode(),
    }
    for name, content in files.items():
        storage.put(f"{REPORT_FOLDER}/{name}", content)
    return f"{REPORT_FOLDER}/index.html"


def ordered_keys(lines: Iterable[Line], arms: Sequence[str]) -> list[str]:
    """Return the keys of all cells in the report's order, which is what numbers them."""
    return [line.cells[arm].key for line in lines for arm in arms if arm in line.cells]


def _write_chunks(storage: Storage, chunks: Iterable[Sequence[object]]) -> None:
    for number, details in enumerate(chunks):
        text = json.dumps(details, separators=(",", ":"))
        script = f"clora.details({number},{text});\n"
        storage.put(f"{REPORT_FOLDER}/data/details-{number}.js", script.encode())
