"""The product's own sampler, run without the composer: latents out, in any precision.

The composer decodes and judges; comparisons with an oracle want the latents before that.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clora_core.diffusion.model import DiffusionModel, load_base_model
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.row import Row
from clora_core.sampling.lanes import lane_batch
from clora_core.sampling.row_lanes import row_lanes
from clora_core.sampling.sampler import Trace, sample

Run = tuple[Tensor, Trace]


class Core:
    """A tiny model held by the product's own loader, and every LoRA file read once."""

    def __init__(self, folder: Path, dtype: str = "float64") -> None:
        self.model: DiffusionModel = load_base_model(folder, dtype=dtype)
        self._targets = lora_targets(self.model.components)
        self._factors: dict[str, LoraFactors] = {}

    def factors(self, path: str | Path) -> LoraFactors:
        """Return the LoRA file's factors."""
        key = str(path)
        if key not in self._factors:
            self._factors[key] = read_lora(key, self._targets)
        return self._factors[key]

    def sample(
        self,
        rows: Row | Sequence[Row],
        *,
        max_lanes: int | None = None,
        graph_budget_bytes: int | None = None,
        keep_maps: bool = False,
    ) -> Run:
        """Return the final latents of ``rows``, which can go together, and what happened."""
        rows = [rows] if isinstance(rows, Row) else list(rows)
        by_digest = {
            lora.digest: self.factors(lora.uri) for row in rows for lora in row.sampled_loras
        }
        digests = sorted(by_digest)
        packed = [by_digest[digest] for digest in digests]
        banks = [LoraBank(tower.encoder, packed, tower.name) for tower in self.model.towers]
        lanes = [row_lanes(self.model, row) for row in rows]
        return sample(
            self.model,
            lane_batch(self.model, lanes, digests, banks),
            LoraBank(self.model.unet, packed, "unet"),
            max_lanes=max_lanes,
            graph_budget_bytes=graph_budget_bytes,
            keep_maps=keep_maps,
        )


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the error of ``found`` as a share of what is expected, in the Euclidean norm."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())
