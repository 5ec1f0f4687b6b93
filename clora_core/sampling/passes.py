"""Passes of the UNet over the lanes: what each kind of pass needs, and nothing more.

A prediction needs both guidance halves and no graph. A latent update needs the maps alone, so its
pass takes the conditional half, stops after the last map layer and keeps a graph only up to there.
Whatever is more than the limits runs in chunks; every pass is exact in any chunking.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Num
from torch import Tensor

from clora_core.diffusion.attention import MapCapture, MapsCompleteError
from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel
from clora_core.lora.bank import LoraBank
from clora_core.memory import graph_bytes
from clora_core.sampling.lanes import Half, LaneBatch

CallResult = tuple[
    Float[Tensor, "lane channel height width"] | None, Float[Tensor, "lane position token"] | None
]
"""Predictions of one call, unless it stopped at the maps, and its maps, if any are captured."""


@dataclass(frozen=True)
class PassInputs:
    """What a pass starts from.

    Attributes:
        latents: Every row's latents as the model sees them (scaled by the solver).
        t: Timestep.
        weights: LoRA weights of every lane.
    """

    latents: Float[Tensor, "row channel height width"]
    t: Num[Tensor, ""]
    weights: Float[Tensor, "lane lora"]


@dataclass(frozen=True)
class Pass:
    """What one pass gave.

    Attributes:
        predictions: Predictions of each guidance half; empty if not asked for.
        maps: Attention maps, mean over layers, heads and the halves that count; None where none
            are captured.
    """

    predictions: Mapping[Half, Float[Tensor, "row variant channel height width"]]
    maps: Float[Tensor, "row variant position token"] | None


@dataclass
class LanePasses:
    """Runs a batch's lanes through the UNet and counts how often.

    Attributes:
        model: Base model.
        bank: The UNet's LoRA bank, attached.
        lanes: The batch.
        capture: Reads the maps; None for methods that need none.
        max_lanes: Most lanes in one call; None for no limit.
        max_graph_lanes: Most lanes that keep a graph at once; None for no limit.
    """

    model: DiffusionModel
    bank: LoraBank
    lanes: LaneBatch
    capture: MapCapture | None
    max_lanes: int | None = None
    max_graph_lanes: int | None = None
    _num_samples: int = field(default=0, init=False)

    @property
    def evaluations(self) -> int:
        """Samples through the UNet so far, per row."""
        return self._num_samples // len(self.lanes.rows)

    @property
    def fits_in_one_call(self) -> bool:
        """Whether the joint graph of all lanes stays within both limits."""
        num_lanes = self.lanes.num_lanes * len(self.lanes.map_halves)
        return self._graph_limit is None or num_lanes <= self._graph_limit

    @property
    def _graph_limit(self) -> int | None:
        limits = [limit for limit in (self.max_lanes, self.max_graph_lanes) if limit is not None]
        return min(limits, default=None)

    def predict(self, inputs: PassInputs) -> Pass:
        """Return both halves' predictions, and the maps where they are captured; no graph."""
        with torch.no_grad():
            return self._run(inputs, tuple(self.lanes.conditions), self.max_lanes)

    def maps_only(self, inputs: PassInputs) -> Pass:
        """Return the maps from passes that stop after the last map layer; no graph."""
        with torch.no_grad():
            return self._run(inputs, self.lanes.map_halves, self.max_lanes, stop=True)

    def with_graph(self, inputs: PassInputs, *, predict: bool) -> Pass:
        """Return maps with a graph to the latents, in one call; predictions too, without one."""
        halves = self.lanes.map_halves
        with torch.enable_grad():
            joint = self._run(inputs, halves, limit=None, stop=not predict)
        others = tuple(half for half in self.lanes.conditions if half not in halves)
        if not predict or not others:
            return joint
        with torch.no_grad():
            rest = self._run(inputs, others, limit=None)
        return Pass({**rest.predictions, **joint.predictions}, joint.maps)

    def map_gradient(
        self, inputs: PassInputs, map_gradients: Float[Tensor, "row variant position token"]
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient at the latents from the maps' gradients, chunk by chunk.

        The second pass of the two-pass gradient: only one chunk's graph is alive at a time, so
        memory does not grow with the number of concepts.
        """
        halves = self.lanes.map_halves
        share = map_gradients.flatten(0, 1) / len(halves)  # [row*variant, position, token]
        share = share.repeat(len(halves), 1, 1)  # [half*row*variant, position, token]
        leaf = inputs.latents.detach().requires_grad_()
        total = torch.zeros_like(leaf, requires_grad=False)
        calls = self._calls(replace(inputs, latents=leaf), halves, self._graph_limit, stop=True)
        with torch.enable_grad():
            for chunk, (_, maps) in calls:
                if maps is None:
                    raise RuntimeError("a gradient of maps without captured maps")
                [gradient] = torch.autograd.grad(maps, leaf, share[chunk])
                total += gradient
        return total

    def graph_bytes_per_lane(self, inputs: PassInputs) -> int:
        """Return what one lane's graph up to the maps takes, measured by building it once.

        A probe of the machine is no part of any row: it does not count as an evaluation.
        """
        leaf = inputs.latents[:1].detach().requires_grad_()
        conditions = self.lanes.conditions[Half.CONDITIONAL][:1]
        return graph_bytes(
            lambda: self._call(leaf, inputs.t, conditions, inputs.weights[:1], stop=True),
            self.model.unet.parameters(),
        )

    def _run(
        self, inputs: PassInputs, halves: Sequence[Half], limit: int | None, *, stop: bool = False
    ) -> Pass:
        """Run all lanes of ``halves`` in as few calls as ``limit`` allows."""
        results = [result for _, result in self._calls(inputs, halves, limit, stop=stop)]
        predictions = self._by_half(halves, [prediction for prediction, _ in results])
        maps = self._by_half(halves, [maps for _, maps in results])
        counted = [maps[half] for half in self.lanes.map_halves if half in maps]
        return Pass(predictions, torch.stack(counted).mean(dim=0) if counted else None)

    def _by_half(
        self, halves: Sequence[Half], chunks: Sequence[Float[Tensor, "_ ..."] | None]
    ) -> dict[Half, Float[Tensor, "row variant ..."]]:
        present = [chunk for chunk in chunks if chunk is not None]
        if not present:
            return {}
        lanes = torch.cat(present)  # [half*row*variant, ...]
        sizes = (len(halves), len(self.lanes.rows), self.lanes.kind.num_variants)
        by_half = lanes.unflatten(0, sizes)  # [half, row, variant, ...]
        return dict(zip(halves, by_half, strict=True))

    def _calls(
        self, inputs: PassInputs, halves: Sequence[Half], limit: int | None, *, stop: bool
    ) -> Iterator[tuple[slice, CallResult]]:
        """Yield the lanes of each call and its result."""
        conditions = Conditions.join([self.lanes.conditions[half] for half in halves])
        weights = inputs.weights.repeat(len(halves), 1)  # [half*row*variant, lora]
        for chunk in _chunks(self.lanes.num_lanes, len(halves), limit):
            by_row = inputs.latents.repeat_interleave(self.lanes.kind.num_variants, dim=0)
            latents = by_row.repeat(len(halves), 1, 1, 1)[chunk]  # [lane, channel, height, width]
            self._num_samples += len(latents)
            yield chunk, self._call(latents, inputs.t, conditions[chunk], weights[chunk], stop=stop)

    def _call(
        self,
        latents: Float[Tensor, "lane channel height width"],
        t: Num[Tensor, ""],
        conditions: Conditions,
        weights: Float[Tensor, "lane lora"],
        *,
        stop: bool,
    ) -> CallResult:
        self.bank.use(weights)
        if self.capture is not None:
            self.capture.start(stop_after_maps=stop)
        prediction = None
        # The capture switches gradients off half-way; the block puts the mode back.
        with suppress(MapsCompleteError), torch.set_grad_enabled(torch.is_grad_enabled()):
            prediction = self.model.run_unet(latents, t, conditions)
        return prediction, None if self.capture is None else self.capture.take()


def _chunks(num_lanes: int, num_halves: int, limit: int | None) -> Iterator[slice]:
    """Yield the lanes of each call: all at once where the limit allows, else half by half."""
    total = num_lanes * num_halves
    size, whole = (total, total) if limit is None or total <= limit else (limit, num_lanes)
    for first in range(0, total, whole):
        for start in range(first, first + whole, size):
            yield slice(start, min(start + size, first + whole))
