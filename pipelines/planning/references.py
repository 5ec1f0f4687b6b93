"""References: the images each LoRA makes alone, planned and kept like all other rows.

A score compares an image with what its LoRAs make on their own (arXiv 2403.19776, section 4.2):
method ``single``, prompt "a <subject>", seeds 0, 1, 2, ..., on the row's base model with the
settings that its rows start from. They have keys, so they are rendered once and shared by all runs
that look in the same folder. A LoRA's weight is 1 here and it has the whole image, whatever a row
says: rows of all weights and regions are compared with one thing.

They are made in blocks of five seeds, whole ones, each a unit. So a unit's name follows from what
it shows alone, and runs with other settings that share a folder know it by the same name; see
``claims``. A centroid takes the seeds that were asked for and no others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.key import row_key
from clora_core.recipe.reading.syntax import escaped
from clora_core.recipe.row import Lora, Row
from pipelines.planning.plan_uses import Concept
from pipelines.storage.storage import Storage
from pipelines.units.committed_unit import read_units
from pipelines.units.output_files import encode_parquet, read_table

SEEDS_PER_BLOCK = 5

_CENTROIDS = pa.schema([("reference_id", pa.string()), ("centroid", pa.list_(pa.float32()))])


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """How references of one base model are made.

    Attributes:
        num_references: Images per LoRA.
        sampler: The settings that rows of the base model start from.
        side_px: Width and height.
        dtype: Numbers that the base model computes with.
    """

    num_references: int
    sampler: SamplerConfig
    side_px: int
    dtype: str = "float32"


def reference_id(base_model_digest: str, lora: Lora) -> str:
    """Return what decides a LoRA's reference images: base model, tensors, words that call it."""
    return f"{base_model_digest} {lora.digest} {lora.subject or ''} {lora.trigger or ''}"


def reference_rows(
    concepts: Iterable[Concept], settings: Mapping[str, ReferenceSettings]
) -> Iterator[Row]:
    """Yield the reference rows of concept LoRAs, those that make the same images once.

    Args:
        concepts: From ``plan_uses``, in any order.
        settings: By the digest of the base model; none for no references.
    """
    if not settings:
        return
    seen: set[str] = set()
    # By name, so that of several names for the same the choice does not depend on the order.
    for model, lora in sorted(concepts, key=lambda concept: (concept[0], concept[1].name)):
        identity = reference_id(model, lora)
        if identity not in seen:
            seen.add(identity)
            for seed in range(settings[model].num_references):
                yield reference_row(lora, seed, model, settings[model])


def whole_blocks(settings: Mapping[str, ReferenceSettings]) -> dict[str, ReferenceSettings]:
    """Return the settings of what is made: as asked, rounded up to whole blocks of seeds."""
    return {
        model: replace(
            asked,
            num_references=-(-asked.num_references // SEEDS_PER_BLOCK) * SEEDS_PER_BLOCK,
        )
        for model, asked in settings.items()
    }


def block_of(row: Row) -> str:
    """Return the name of the block that a reference row is made in."""
    identity = reference_id(row.base_model_digest, row.loras[0])
    return f"{identity} {row.seed // SEEDS_PER_BLOCK}"


def reference_row(
    lora: Lora, seed: int, base_model_digest: str, settings: ReferenceSettings
) -> Row:
    """Return the row of one image that a LoRA makes alone."""
    row = Row(
        base_model_digest=base_model_digest,
        row_id=f"reference-{lora.name}-{seed}",
        prompt=f"a {escaped(lora.subject or '', settings.sampler.prompt_syntax)}",
        loras=(lora,),
        seed=seed,
        method="single",
        width=settings.side_px,
        height=settings.side_px,
        sampler=settings.sampler,
    )
    return replace(row, key=row_key(row, dtype=settings.dtype))


def read_centroids(storage: Storage, references: Iterable[Row]) -> dict[str, np.ndarray]:
    """Return the mean features of the ``references`` that are made, by ``reference_id``."""
    wanted = {row.key: reference_id(row.base_model_digest, row.loras[0]) for row in references}
    features: dict[str, np.ndarray] = {}
    for found in read_units(storage, partial(_features, storage)):
        features |= {key: value for key, value in found.items() if key in wanted}
    groups: dict[str, list[np.ndarray]] = {}
    for key in sorted(features):
        groups.setdefault(wanted[key], []).append(features[key])
    return {identity: np.mean(group, axis=0) for identity, group in groups.items()}


def _features(storage: Storage, name: str) -> dict[str, np.ndarray]:
    table = read_table(storage, name, ["key", "dino_features"])
    return {
        key: np.asarray(value, np.float32)
        for key, value in zip(
            table["key"].to_pylist(), table["dino_features"].to_pylist(), strict=True
        )
        if value is not None
    }


def write_centroids(
    storage: Storage, name: str, means: Mapping[str, np.ndarray]
) -> "CentroidSource":
    """Write the centroids where score actors on any machine find them; return how they do."""
    table = pa.table(
        {
            "reference_id": list(means),
            "centroid": [mean.tolist() for mean in means.values()],
        },
        schema=_CENTROIDS,
    )
    storage.put(name, encode_parquet(name, [table], _CENTROIDS))
    return CentroidSource(storage=storage, name=name)


@dataclass(frozen=True, kw_only=True)
class CentroidSource:
    """Centroids as score actors get them: by the name of a file, so that a restart finds them.

    Attributes:
        storage: Where the file is; None for no centroids.
        name: The file that ``write_centroids`` wrote.
    """

    storage: Storage | None = None
    name: str = ""

    def __call__(self) -> dict[str, np.ndarray]:
        """Read the centroids."""
        if self.storage is None:
            return {}
        rows = read_table(self.storage, self.name).to_pylist()
        return {row["reference_id"]: np.asarray(row["centroid"], np.float32) for row in rows}
