"""What the fused adapters of an output took to make, read from the adapters themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from clora_core.fuse.adapter_file import provenance_of
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.cost import fusion_evaluations
from pipelines.fusing.fused_files import fused_keys, fused_name
from pipelines.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Fused:
    """What the file of a fused adapter says of itself."""

    method: str
    num_loras: int
    seconds: float
    evaluations: int
    final_loss: float


def fusing_table(fusions: Sequence[Fused]) -> str:
    """Return what adapters took before any picture was sampled with them."""
    lines = [
        "| method | adapters | LoRAs each | seconds each, median (most) | UNet samples each | "
        "final loss, median |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    kinds = sorted({(fused.method, fused.num_loras) for fused in fusions})
    for method, num_loras in kinds:
        found = [f for f in fusions if (f.method, f.num_loras) == (method, num_loras)]
        seconds = sorted(fused.seconds for fused in found)
        lines.append(
            f"| {method} | {len(found):,} | {num_loras} | "
            f"{median(seconds):.1f} ({seconds[-1]:.1f}) | {found[0].evaluations:,} | "
            f"{median(fused.final_loss for fused in found):.3f} |"
        )
    return "\n".join(
        [
            "Once for each set of LoRAs, on top of the cost of the pictures in the table: an image "
            "of a method that fuses costs what one of merge costs. Seconds of one process on the "
            "machine below, with whatever else ran; [benchmarks/fusing.md](benchmarks/fusing.md) "
            "has time and memory of each recipe by itself. The loss is each recipe's own and not "
            "to be compared between them.",
            "",
            *lines,
        ]
    )


def fused_adapters(storage: Storage) -> list[Fused]:
    """Return what the fused adapters of an output say of themselves."""
    found: list[Fused] = []
    for key in sorted(fused_keys(storage)):
        facts = provenance_of(storage.read(fused_name(key)))
        config = SamplerConfig.resolve(facts["settings"])
        num_loras = len(facts["loras"])
        found.append(
            Fused(
                method=facts["method"],
                num_loras=num_loras,
                seconds=facts["seconds"],
                evaluations=fusion_evaluations(facts["method"], num_loras, config),
                final_loss=facts["final_loss"],
            )
        )
    return found
