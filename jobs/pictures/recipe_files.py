"""The files that a picture's recipe names by digest, found through a job; and its planned row.

The recipe is believed as far as ``jobs.pictures.recipe`` has checked it. What it names by place, a
mask, is judged here before it is touched.
"""

from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.row import Row
from jobs.job.base_models import model_facts
from jobs.job.inputs import job_lora_catalog
from jobs.job.job_file import JobFile
from jobs.pictures.picture import Picture, PictureError
from jobs.pictures.recipe import Recipe, checked_recipe, size_findings
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.loras.local_lora import local_lora
from manifests.places.allowed_roots import AllowedRoots
from manifests.places.file_cache import local_copy
from manifests.places.locations import LocationError
from manifests.places.regular_file import irregularity
from manifests.rows.regions import MAX_MASK_BYTES
from manifests.text.problems import InputError, Problem
from manifests.weights.base_model import BaseModelFacts
from manifests.weights.model_config import BaseModelProblem


def recipe_of(picture: Picture, path: Path) -> Recipe:
    """Return the recipe; InputError with everything that is wrong with it."""
    height_px, width_px = picture.pixels.shape[:2]
    recipe, findings = checked_recipe(picture.recipe, width_px=width_px, height_px=height_px)
    if recipe is None:
        raise _refused(findings, path)
    return recipe


def base_of(recipe: Recipe, job: JobFile, path: Path) -> BaseModelFacts:
    """Return the job's base model that made the picture; PictureError if it has none of it."""
    wanted = recipe.base_model_digest
    others: list[str] = []
    for named in dict.fromkeys(job.models.values()):
        try:
            base = model_facts(named)
        except (BaseModelProblem, LocationError) as error:
            others.append(str(error))
            continue
        if base.digest == wanted:
            return base
        others.append(f"{base.folder} has {base.digest[:12]}")
    raise PictureError(
        f"{path} was made with the base model of digest {wanted[:12]}, and {', '.join(others)}; "
        "name a job with the right one with --job"
    )


def row_of(
    recipe: Recipe, job: JobFile, base: BaseModelFacts, allowed: AllowedRoots, path: Path
) -> Row:
    """Return the picture as the composer makes it.

    Args:
        recipe: Of the picture.
        job: Names the catalog that its LoRAs are in.
        base: The base model that made it.
        allowed: Where catalog, LoRAs and masks may be.
        path: The picture, for messages.

    Raises:
        InputError: The size is none of a row, or a LoRA is not in the catalog.
        LocationError: A LoRA or a mask cannot be read or may not be.
    """
    findings = size_findings(recipe, base.default_size_px)
    if findings:
        raise _refused(findings, path)
    uris = _lora_uris(recipe, job, base, allowed, path)
    return recipe.row(uris).with_local_files(
        local_lora=lambda uri: str(local_lora(uri)),  # its catalog was judged
        local_mask=lambda uri: _local_mask(uri, allowed),
    )


def _lora_uris(
    recipe: Recipe, job: JobFile, base: BaseModelFacts, allowed: AllowedRoots, path: Path
) -> dict[str, str]:
    """Return where the LoRAs of the recipe are, by digest."""
    files, fit = LoraFiles(), LoraFit(model_width=base.cross_attention_width)
    catalog = job_lora_catalog(job.catalog, allowed)
    named = {lora.name for lora in recipe.loras}
    # Those of the same name first: a catalog may be long and its files far away.
    entries = sorted(catalog.values(), key=lambda entry: entry.name not in named)
    missing = {lora.digest: lora.name for lora in recipe.loras}
    uris: dict[str, str] = {}
    for entry in entries:
        if not missing:
            break
        digest = files.state(entry, fit).digest
        if missing.pop(digest, None) is not None:
            uris[digest] = files.place(entry)
    findings = [
        (
            "loras",
            f"no LoRA in {catalog.place} has the tensors of {name!r} (digest {digest[:12]}); add "
            "the file to a catalog and name its job with --job",
        )
        for digest, name in missing.items()
    ]
    if findings:
        raise _refused(findings, path)
    return uris


def _local_mask(uri: str, allowed: AllowedRoots) -> str:
    """Return a local copy of a mask, which nothing has judged yet."""
    allowed.check(uri)
    mask = local_copy(uri, max_bytes=MAX_MASK_BYTES)
    problem = irregularity(mask)
    if problem is not None:
        raise LocationError(f"mask {uri} {problem}")
    return str(mask)


def _refused(findings: Sequence[tuple[str, str]], path: Path) -> InputError:
    return InputError(
        [Problem(place=str(path), field=field, problem=text) for field, text in findings]
    )
