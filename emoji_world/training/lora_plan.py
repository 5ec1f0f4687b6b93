"""Which LoRA gets which rank, layers and file format: together they cover what people have."""

from dataclasses import dataclass

from emoji_world.bestiary import INSTANCES, ORDINARY, STYLES, Instance, plain_name
from emoji_world.training.lora_bank import Adapter


@dataclass(frozen=True, kw_only=True)
class PlannedLora:
    """A LoRA to train: what it shows, what it adapts, how its file is written.

    Attributes:
        adapter: What it adapts.
        instance: Whom it shows; a style shows nobody.
        file_format: One of ``emoji_world.lora_export.FORMATS``.
        alpha: Written to kohya files.
        taught: Whether its attention is taught where to look and it learns to take a subject over;
            an ordinary LoRA learns from the noise alone.
    """

    adapter: Adapter
    instance: Instance | None
    file_format: str
    alpha: float
    taught: bool = True


# name -> (rank, feed-forward too, format, alpha)
_SHAPES: dict[str, tuple[int, bool, str, float]] = {
    "violet-cat": (8, False, "peft", 8),
    "tuxedo-cat": (8, True, "kohya", 4),
    "husky-dog": (8, True, "kohya", 8),
    "pink-poodle": (8, False, "peft", 8),
    "chocolate-rabbit": (8, False, "diffusers", 8),
    "blue-penguin": (4, True, "kohya", 2),
    "polar-bear": (8, False, "peft", 8),
    "panda-bear": (8, False, "diffusers", 8),
    "azure-frog": (4, False, "peft", 4),
    "indigo-flower": (8, False, "kohya", 8),
    "mint-taxi": (8, False, "peft", 8),
    "haunted-house": (16, False, "peft", 16),
    "retro-robot": (8, False, "kohya", 8),
    "lime-ball": (6, False, "peft", 6),
    "pixel-art": (8, True, "peft", 8),
    "line-art": (8, True, "kohya", 8),
    "night": (4, False, "diffusers", 4),
}
_ORDINARY_RANK = 6
_WITH_TEXT_ENCODER = {"mint-taxi"}
_WITH_CONVOLUTIONS = {"retro-robot"}


def _plan() -> tuple[PlannedLora, ...]:
    instances: list[Instance | None] = [*INSTANCES, *(None for _ in STYLES)]
    names = [i.name for i in INSTANCES] + [s.name for s in STYLES]
    planned: list[PlannedLora] = []
    for name, instance in zip(names, instances, strict=True):
        rank, feed_forward, file_format, alpha = _SHAPES[name]
        adapter = Adapter(
            name=name,
            rank=rank,
            feed_forward=feed_forward,
            convolutions=name in _WITH_CONVOLUTIONS,
            text_encoder=name in _WITH_TEXT_ENCODER,
        )
        planned.append(
            PlannedLora(adapter=adapter, instance=instance, file_format=file_format, alpha=alpha)
        )
    return tuple(planned)


def _ordinary() -> tuple[PlannedLora, ...]:
    known = {instance.name: instance for instance in INSTANCES}
    return tuple(
        PlannedLora(
            adapter=Adapter(name=plain_name(name), rank=_ORDINARY_RANK),
            instance=known[name],
            file_format="peft",
            alpha=_ORDINARY_RANK,
            taught=False,
        )
        for name in ORDINARY
    )


PLAN: tuple[PlannedLora, ...] = _plan()
ORDINARY_PLAN: tuple[PlannedLora, ...] = _ordinary()
"""The instances of ``ORDINARY`` again, trained as LoRAs ordinarily are."""
