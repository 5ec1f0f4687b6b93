"""An output evaluated with all that is at hand: references, the embedded world's judge, CLIP.

The judge is a classifier that knows the embedded world's instances by name, so it is asked only
about images of that base model. Pipelines do not know the embedded world; its findings go in as
further figures by row key.
"""

import io
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clora_core.recipe.errors import CloraError
from emoji_world import base_model_dir, presence_file
from emoji_world.bestiary import instance_name
from emoji_world.scenes import SIDE_PX
from jobs.job.job_roots import service_roots
from jobs.job.run_request import references_folder
from manifests.places.folder_cache import local_folder
from manifests.places.locations import LocationError
from manifests.places.place_names import absolute, joined
from manifests.text.problems import InputError
from manifests.weights.digests import folder_digest
from pipelines.evaluation.comparison import REFERENCE
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.ledger.run_record import read_run_records
from pipelines.storage.error import StorageError
from pipelines.storage.storage import Storage, open_storage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

JUDGED_AT_ONCE = 256


class NoOutputError(CloraError):
    """Nothing was made there, or a model is none; the message names the place and the way out."""


def open_output(output: str, damages: Damages) -> tuple[Storage, dict[str, Any]]:
    """Return an output and the record of its latest run that can be read.

    Raises:
        NoOutputError: No run has written there.
        StorageError: The place cannot be read.
    """
    storage = open_storage(absolute(output, beside="."))
    records = read_run_records(storage, skip=damages.skip)
    if not records and damages.left_out:
        raise NoOutputError(
            f"{output}: no record of a run can be read; `clora compose JOB` writes one"
        )
    if not records:
        raise NoOutputError(f"{output}: no run has written here; `clora compose JOB` does")
    return storage, records[-1]


def evaluated(
    storage: Storage,
    record: Mapping[str, Any],
    damages: Damages,
    *,
    clip_model: str | None = None,
    reference: str = REFERENCE,
) -> Evaluation:
    """Return the evaluation of an output.

    Args:
        storage: The output.
        record: Of its latest run.
        damages: Gets what is damaged and left out.
        clip_model: Folder of a CLIP model that compares images with prompts; None for no such
            score.
        reference: Method that the others are compared with.

    Raises:
        NoOutputError: The CLIP model cannot be read, or the references may not be.
    """
    more = _presence(storage, damages)
    if clip_model is not None:
        for key, score in _clip_scores(storage, clip_model, damages).items():
            more.setdefault(key, {})["clip_text"] = score
    return evaluate(
        storage,
        damages=damages,
        references=_references(storage, record),
        more=more,
        base_models=_model_names(record),
        reference=reference,
    )


def _model_names(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what the latest run calls its base models, by digest."""
    further: Mapping[str, str] = record.get("base_models", {})
    names = {digest: name for name, digest in further.items()}
    default, place = record["digests"].get("base_model"), record["job"].get("base_model")
    title = PurePosixPath(str(place)).name
    if default is not None and place is not None and title not in further:
        names.setdefault(default, title)
    return names


def _clip_scores(storage: Storage, model: str, damages: Damages) -> dict[str, float]:
    """Return how well each image shows its prompt, by row key."""
    from clora_core.clip import ClipScorer

    try:
        scorer = ClipScorer.load(local_folder(absolute(model, beside=".")))
    except (OSError, ValueError, LocationError) as error:
        reason = str(error).splitlines()[0]
        raise NoOutputError(
            f"{model} is no CLIP model ({reason}); name a folder of transformers' CLIPModel with "
            "its tokenizer and preprocessor_config.json"
        ) from error
    rows = read_output_rows(storage, [*IMAGE_COLUMNS, "prompt"], skip=damages.skip).to_pylist()
    return {
        row["key"]: float(score)
        for batch, pixels in _images(storage, rows, damages)
        for row, score in zip(
            batch, scorer.scores(pixels, [row["prompt"] for row in batch]), strict=True
        )
    }


def _references(storage: Storage, record: Mapping[str, Any]) -> Storage | None:
    digest = record["digests"].get("dino")
    if digest is None:
        return None
    kept_at = record["job"].get("scoring", {}).get("references_at")
    folder = references_folder(digest)
    if kept_at is None:
        return open_storage(joined(storage.uri, f"references/{folder}"))
    try:
        service_roots().check(kept_at)
        return open_storage(joined(kept_at, folder))
    except (LocationError, InputError, StorageError) as error:
        raise NoOutputError(f"{storage.uri}: its references: {error}") from error


def _presence(storage: Storage, damages: Damages) -> dict[str, dict[str, float]]:
    """Return what the judge finds in the images of the embedded world, by row key."""
    embedded = folder_digest(base_model_dir())
    columns = [*IMAGE_COLUMNS, "loras", "base_model_digest", "width", "height"]
    rows = read_output_rows(storage, columns, skip=damages.skip)
    mine = [row for row in rows.to_pylist() if row["base_model_digest"] == embedded]
    if not mine:
        return {}
    from emoji_world.presence import figures_of, judge, load_presence

    net = load_presence(presence_file())
    wanted = {
        row["key"]: [str(name) for name in names]
        for row in mine
        if (names := [instance_name(x["name"]) for x in row["loras"] if x["kind"] == "concept"])
        and None not in names  # the judge knows nouns as well, and a LoRA may be called like one
        and row["height"] == SIDE_PX  # it knows subjects of that scale, on any width
    }
    mine = [row for row in mine if row["key"] in wanted]
    found: dict[str, dict[str, float]] = {}
    for batch, pixels in _images(storage, mine, damages):
        verdicts = [judge(net, [image])[0] for image in pixels]  # widths may differ
        for row, verdict in zip(batch, verdicts, strict=True):
            found[row["key"]] = figures_of(verdict, wanted[row["key"]])
    return found


def _images(
    storage: Storage, rows: list[dict[str, Any]], damages: Damages
) -> Iterator[tuple[list[dict[str, Any]], list[NDArray[np.uint8]]]]:
    """Yield rows and their images, RGB [height, width, 3], by the batch; lost ones are left out."""
    ordered = iter(sorted(rows, key=lambda row: row["key"]))
    while batch := list(islice(ordered, JUDGED_AT_ONCE)):
        read = [(row, damages.image(storage, row)) for row in batch]
        shown = [(row, _pixels(content)) for row, content in read if content is not None]
        if shown:
            yield [row for row, _ in shown], [pixels for _, pixels in shown]


def _pixels(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
