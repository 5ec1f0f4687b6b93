"""Which of two LoRAs an attention projection takes (K-LoRA, arXiv 2502.18461).

A LoRA counts in a layer as much as the k largest entries of its delta add up to, k the product of
both ranks. Gamma brings the two files to one level: the mean over layers of the ratio of all their
entries, without layers of more than three times that mean. Weights of a row are in both measures
and cancel out. A step's scale is all that changes, so one ratio a layer says what every step takes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from clora_core.lora.bank import LoraBank
from clora_core.lora.layer_weights import LayerWeights

PROJECTION = re.compile(r"\.attn\d+\.to_(q|k|v|out\.0)$")
"""Names of the layers that are chosen for."""
OUTLIER = 3.0
"""Layers whose ratio is so many times the mean are left out of gamma."""


@dataclass(frozen=True, eq=False)
class LayerChoice:
    """What the attention projections of some rows choose by.

    Attributes:
        layers: Place of each projection that both LoRAs of some row change.
        ratios: How many times as much the content's LoRA counts there as the style's; NaN where
            the row has not both.
        columns: Of each row's content and style LoRA.
    """

    layers: Mapping[str, int]
    ratios: Float[Tensor, "row layer"]
    columns: Int[Tensor, "row 2"]

    @classmethod
    def of(cls, bank: LoraBank, columns: Sequence[tuple[int, int]]) -> "LayerChoice":
        """Measure the LoRAs of ``bank``, the UNet's; ``columns`` are each row's two."""
        measured = {pair: layer_ratios(bank, *pair) for pair in set(columns)}
        names = sorted({name for ratios in measured.values() for name in ratios})
        table = [[measured[pair].get(name, torch.nan) for name in names] for pair in columns]
        ratios = torch.tensor(table, dtype=torch.float64)
        return cls({name: at for at, name in enumerate(names)}, ratios, torch.tensor(columns))

    def weights(self, scale: float, weights: Float[Tensor, "row lora"]) -> LayerWeights:
        """Return every layer's weights at a step.

        Args:
            scale: How many times as much as the style's the content's LoRA must count.
            weights: Each row's weights of all its LoRAs.
        """
        ratios = self.ratios.to(weights.device)[:, :, None]  # [row, layer, 1]
        alone = functional.one_hot(self.columns.to(weights.device), weights.shape[1])
        content, style = (alone * weights[:, None]).unsqueeze(1).unbind(dim=2)  # [row, 1, lora]
        chosen = torch.where(ratios >= scale, content, style)  # [row, layer, lora]
        return LayerWeights(
            weights, torch.where(ratios.isnan(), weights[:, None], chosen), self.layers
        )


def layer_ratios(bank: LoraBank, content: int, style: int) -> dict[str, float]:
    """Return S_content / (gamma S_style) of every projection that two LoRAs of a bank change."""
    sums: dict[str, tuple[float, float]] = {}
    totals: list[float] = []
    for name, (one, other) in bank.deltas(content, style):
        if PROJECTION.search(name) is None:
            continue
        sizes, other_sizes = one.values.abs(), other.values.abs()
        most = min(one.rank * other.rank, sizes.numel())
        sums[name] = (_largest(sizes, most), _largest(other_sizes, most))
        total = float(other_sizes.sum())
        if total:
            totals.append(float(sizes.sum()) / total)
    gamma = _mean_without_outliers(totals)
    return {name: _ratio(one, gamma * other) for name, (one, other) in sums.items()}


def _largest(sizes: Float[Tensor, "out in"], most: int) -> float:
    return float(sizes.flatten().topk(most, sorted=False).values.sum())


def _mean_without_outliers(ratios: Sequence[float]) -> float:
    if not any(ratios):
        return 1.0  # One of the two changes nothing, so there is no level to bring them to.
    mean = sum(ratios) / len(ratios)
    kept = [ratio for ratio in ratios if ratio < OUTLIER * mean]
    return sum(kept) / len(kept)


def _ratio(one: float, other: float) -> float:
    return one / other if other else torch.inf
