"""``clora render``: a picture made again from what it says of itself.

The picture has the recipe; base model and LoRAs are found by digest through a job: the one given,
or that of the latest run in whose output the picture lies. What is made is compared with the
picture, so this is also how to ask whether another machine or version still makes the same.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from clora_core.recipe.config import ENGINE_VERSION
from clora_core.recipe.fusion import fusion_of
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Row
from clora_core.results import AttentionRecord, RowFailure
from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.job.job_file import JobFile, load_job, parse_job
from jobs.job.job_roots import job_places, refuse_outside, service_roots
from jobs.job.local_host import fused_content, local_host, written_beside
from jobs.job.text_reader import text_reader
from jobs.notes import note
from jobs.pictures.picture import Picture, PictureError, read_picture, with_texts
from jobs.pictures.recipe import Recipe, unknown_fields
from jobs.pictures.recipe_files import base_of, recipe_of, row_of
from manifests.places.place_names import joined
from manifests.rows.text_reader import text_chunks
from manifests.text.wording import listed
from manifests.weights.base_model import BaseModelFacts
from pipelines.ledger.run_record import read_run_records
from pipelines.report.attention import attention_sheet, maps_name
from pipelines.stages.fused_work import References
from pipelines.storage.storage import open_storage
from pipelines.units.damages import Damages

if TYPE_CHECKING:
    from clora_core.composer import Composer

MAX_MEAN_DIFFERENCE = 1.0
"""Levels of 255: a batch of another size rounds differently, and that is all that may differ."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How far two pictures are apart, in levels of 255."""

    mean: float
    largest: int

    @property
    def is_same(self) -> bool:
        """Whether rounding explains it."""
        return self.mean <= MAX_MEAN_DIFFERENCE


def likeness(one: np.ndarray, other: np.ndarray) -> Likeness:
    """Return how far two uint8 pictures of one size are apart."""
    apart = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return Likeness(mean=float(apart.mean()), largest=int(apart.max()))


@command()
def render(
    path: Path, *, job_path: Path | None = None, out: Path | None = None, maps: bool = False
) -> int:
    """Make the picture at ``path`` again.

    Args:
        path: A PNG of an output.
        job_path: Job that names base model and catalog; that of the picture's output if None.
        out: Where the new picture goes; ``again-<key>.png`` here if None.
        maps: Write attention maps and masks into the picture's output too, for its report.

    Returns:
        The exit code: 0 the same picture, 1 another one or none, 2 it cannot be made here.
    """
    picture = read_picture(path)
    recipe = recipe_of(picture, path)
    if maps:
        _check_maps(recipe, path)
    job = _job_of(path) if job_path is None else load_job(job_path)
    allowed = service_roots()
    used = {name: where for name, where in job_places(job).items() if _is_used(name)}
    if METHODS[recipe.method].fused_by is not None:
        kept_at = "output" if job.fused_at is None else "fused_at"
        used[kept_at] = job_places(job)[kept_at]
    refuse_outside(used, allowed, place=str(job_path or path))
    base = base_of(recipe, job, path)
    row = row_of(recipe, job, base, allowed, path)
    for text in _doubts(picture, recipe, row, base):
        note(text)
    with TemporaryDirectory() as folder:
        row = _with_fused(row, job, base, Path(folder))
        (made,) = _composer(job, base).compose([row], keep_maps=maps)
    if isinstance(made, RowFailure):
        note(f"not made: {made.error}: {made.message}")
        return SOME_FAILED
    target = out or Path(f"again-{recipe.key[:12]}.png")
    said = {**picture.recipe, "batch_size": 1, "batch_slot": 0}
    folder = open_storage(str(target.absolute().parent))
    folder.put(target.name, with_texts(made.image, picture.parameters, said))
    if maps and made.attention is not None:
        _write_maps(path, recipe, made.image, made.attention)
    found = likeness(made.image, picture.pixels)
    verdict = "the same picture" if found.is_same else "another picture"
    print(
        f"{target}: {verdict}; it differs by {found.mean:.3f} of 255 levels on average, "
        f"{found.largest} at most"
    )
    return ALL_MADE if found.is_same else SOME_FAILED


def _doubts(picture: Picture, recipe: Recipe, row: Row, base: BaseModelFacts) -> list[str]:
    """Return why the picture may come out as another one."""
    doubts: list[str] = []
    made_by = recipe.versions.get("engine")
    if made_by != str(ENGINE_VERSION):
        doubts.append(f"made by engine {made_by}, this is {ENGINE_VERSION}: expect another picture")
    reader = text_reader(base.folder)
    if recipe.text_chunks is None and reader is not None:
        chunks, _ = text_chunks(row, reader)
        if chunks is None or chunks > 1:
            doubts.append(
                "made by a release that read texts up to the text encoder's window, and these are "
                "longer: expect another picture"
            )
    unknown = unknown_fields(picture.recipe)
    if unknown:
        names = listed([repr(name[:80]) for name in unknown], 5)
        doubts.append(f"its recipe has fields that this version does not use: {names}")
    return doubts


def _output_of(path: Path) -> Path | None:
    """Return the output that the picture lies in."""
    folders = path.absolute().parents
    return next((folder for folder in folders if any(folder.glob("runs/*.json"))), None)


def _job_of(path: Path) -> JobFile:
    """Return the job of the output that the picture lies in."""
    folder = _output_of(path)
    if folder is None:
        raise PictureError(
            f"{path} lies in no output, so nothing says where base model and LoRAs are; name a job "
            "with --job"
        )
    damages = Damages(note=note)
    records = read_run_records(open_storage(str(folder)), skip=damages.skip)
    if not records:
        raise PictureError(
            f"no record of a run in {folder} can be read, so nothing says where base model and "
            "LoRAs are; name a job with --job"
        )
    return parse_job(records[-1]["job"], place=str(folder / "runs"))


def _check_maps(recipe: Recipe, path: Path) -> None:
    problem = _why_no_maps(recipe.row({}))
    if problem is not None:
        raise PictureError(f"{path}: {problem}")
    if _output_of(path) is None:
        raise PictureError(f"{path} lies in no output, and --maps goes into it; leave --maps out")


def _why_no_maps(row: Row) -> str | None:
    """Return why sampling ``row`` leaves no maps to show, None if it does leave some."""
    method, base_steps = METHODS[row.method], row.sampler.gate_base_steps
    if method.keeps_maps(row):
        return None
    if not method.follows_maps:
        names = ", ".join(name for name, value in METHODS.items() if value.follows_maps)
        return (
            f"method {row.method!r} has no masks that follow attention maps; --maps is for {names}"
        )
    if base_steps:
        return (
            f"its masks were made before its first step (gate_base_steps {base_steps}), so there "
            "are no maps of its steps; leave --maps out"
        )
    return (
        "regions are the masks of all its concepts, so no step looks at attention maps; leave "
        "--maps out"
    )


def _write_maps(path: Path, recipe: Recipe, image: np.ndarray, attention: AttentionRecord) -> None:
    names = [lora.name for lora in recipe.loras if lora.kind == "concept"]
    name = maps_name(recipe.key)
    storage = open_storage(str(_output_of(path)))
    storage.put(name, attention_sheet(image, attention.maps, attention.masks, names))
    print(f"{joined(storage.uri, name)}: attention maps and masks, for the next `clora report`")


def _is_used(setting: str) -> bool:
    """Return whether a place of the job has a part in making a picture."""
    return setting == "loras" or setting.partition(".")[0] in ("base_model", "base_models")


def _with_fused(row: Row, job: JobFile, base: BaseModelFacts, folder: Path) -> Row:
    """Return the row with the adapter that its method fuses, taken from its job or made here."""
    fusion = fusion_of(replace(row, base_model_digest=base.digest), dtype=job.resources.dtype)
    if fusion is None:
        return row
    host = local_host({base.digest: str(base.folder)}, job.resources)
    storage = open_storage(job.fused_at or job.output)
    content, _ = fused_content(fusion, storage, References(storage=None), host)
    return replace(row, fused=fusion.lora(str(written_beside(content, folder, fusion.key))))


def _composer(job: JobFile, base: BaseModelFacts) -> "Composer":
    # Imported late: whoever asks for what cannot be made should not wait for a model library.
    import torch

    from clora_core.composer import Composer
    from clora_core.diffusion.model import load_base_model
    from clora_core.lora.cache import LoraCache

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_base_model(base.folder, dtype=job.resources.dtype, device=device)
    cache = LoraCache(job.resources.lora_cache_bytes)
    return Composer(model, cache, max_lanes=job.resources.max_lanes)
