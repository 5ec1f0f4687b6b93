"""What a run may use: the ``resources`` of a job file, as every part of the engine takes them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from manifests.places.patience import RETRY_S

_DAY_S = 86_400.0
_BYTES_PER_GIB = 1024**3


class Resources(BaseModel, frozen=True, extra="forbid"):
    """What a run may use.

    Attributes:
        actors: Processes that make images, each with a whole base model. More is faster as long
            as there are GPUs (or cores) for them.
        max_actors: The most there may be: more are added while units wait and there is room for
            them, on a cluster that grows also by asking for machines, and go when they are idle.
            Not given: always ``actors``.
        gpus_per_actor: GPUs that each takes; a half puts two on one GPU, 0 computes on the CPU.
            Not given: 1 where the cluster has a GPU, else 0.
        cpus_per_actor: Cores that each takes.
        score_actors: Processes that score images.
        rows_per_unit: Rows of one unit: what is committed at once, and lost at worst. More is
            faster with many LoRA sets, fewer shows progress sooner.
        lora_cache_gib: Memory for LoRAs that each image process keeps, in GiB.
        lora_device_gib: GPU memory for LoRAs that each keeps beside that, so that they are not sent
            again for every unit; given up when memory runs out. 0 for none.
        dtype: Numbers of the base model. Halves need half the memory; float32 is exact. They give
            other pixels, so this is part of every row's key.
        max_lanes: Samples in one UNet call at most; fewer need less memory. Not given: what fits.
        attempts: How often a row that fails is tried, over all runs, before it is left alone until
            ``clora retry``.
        store_retry_s: For how long, in seconds, a request to the store of the output or the
            references is repeated while the store is away, from its first failure. Longer
            outlasts longer outages; 0 repeats nothing. A disk has no use for it.
        plan_on: Where the manifest is checked and planned: ``driver`` in the process that runs the
            job, ``cluster`` by Ray Data on all machines, which then have to reach the manifest's
            files. ``auto`` takes a cluster that is named, for a manifest of a million rows or more.
    """

    actors: Annotated[int, Field(ge=1)] = 1
    max_actors: Annotated[int | None, Field(ge=1)] = None
    gpus_per_actor: Annotated[float | None, Field(ge=0.0)] = None
    cpus_per_actor: Annotated[float, Field(gt=0.0)] = 1.0
    score_actors: Annotated[int, Field(ge=1)] = 1
    rows_per_unit: Annotated[int, Field(ge=1, le=4096)] = 8
    lora_cache_gib: Annotated[float, Field(gt=0.0)] = 2.0
    lora_device_gib: Annotated[float, Field(ge=0.0)] = 0.5
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    max_lanes: Annotated[int | None, Field(ge=1)] = None
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    plan_on: Literal["auto", "driver", "cluster"] = "auto"
    store_retry_s: Annotated[float, Field(ge=0.0, le=_DAY_S, allow_inf_nan=False)] = RETRY_S

    @field_validator("max_actors")
    @classmethod
    def _is_no_less_than_actors(cls, most: int | None, info: ValidationInfo) -> int | None:
        least = info.data.get("actors", 1)
        if most is not None and most < least:
            raise ValueError(f"should be at least actors ({least}), got {most}")
        return most

    @property
    def lora_cache_bytes(self) -> int:
        """Memory for LoRAs that each image process keeps."""
        return int(self.lora_cache_gib * _BYTES_PER_GIB)

    @property
    def lora_device_bytes(self) -> int:
        """GPU memory for LoRAs that each image process keeps."""
        return int(self.lora_device_gib * _BYTES_PER_GIB)
