"""Passes of the UNet over the lanes: what each kind of pass needs, and nothing more.

A prediction needs both guidance halves and no graph. A latent update needs the maps alone, so its
pass takes the conditional half, stops after the last map layer and keeps a graph only up to there.
Whatever is more than the limits runs in chunks; every pass is exact in any chunking.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.attention import MapCapture, MapsCompleteError
from clora_core.diffusion.contexts import TextContexts
from clora_core.diffusion.features import FeatureCapture
from clora_core.diffusion.model import DiffusionModel
from clora_core.lora.bank import LoraBank
from clora_core.lora.gate import Gate
from clora_core.memory import graph_bytes
from clora_core.sampling.calls import Call, PassInputs, call_of_all
from clora_core.sampling.lanes import Half, LaneBatch


@dataclass(frozen=True)
class _Result:
    """What one call gave: of lanes that stopped at the maps no prediction."""

    prediction: Float[Tensor, "lane channel height width"] | None
    maps: Float[Tensor, "lane *part position token"] | None
    features: Float[Tensor, "lane position feature"] | None


@dataclass(frozen=True)
class Pass:
    """What one pass gave.

    Attributes:
        predictions: Predictions of each guidance half; empty if not asked for. A gated row has
            one, in the place of its variants'.
        maps: Attention maps, mean over layers, heads and the halves that count; None where none
            are captured.
        features: Self-attention features of the conditional half, likewise.
    """

    predictions: Mapping[Half, Float[Tensor, "row lane_of_row channel height width"]]
    maps: Float[Tensor, "row variant position token"] | None
    features: Float[Tensor, "row position feature"] | None = None


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
        contexts: Texts of gated lanes, attached; None for plain ones.
        features: Reads self-attention features; None where nothing needs them.
    """

    model: DiffusionModel
    bank: LoraBank
    lanes: LaneBatch
    capture: MapCapture | None
    max_lanes: int | None = None
    max_graph_lanes: int | None = None
    contexts: TextContexts | None = None
    features: FeatureCapture | None = None
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
        return replace(joint, predictions={**rest.predictions, **joint.predictions})

    def map_gradient(
        self, inputs: PassInputs, map_gradients: Float[Tensor, "row variant position token"]
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient at the latents from the maps' gradients, chunk by chunk.

        The second pass of the two-pass gradient: only one chunk's graph is alive at a time, so
        memory does not grow with the number of concepts.
        """
        halves = self.lanes.map_halves
        share = map_gradients / len(halves)
        if self.lanes.gate is None:
            share = share.flatten(0, 1)  # [lane, position, token]
        share = torch.cat([share] * len(halves))
        leaf = inputs.latents.detach().requires_grad_()
        total = torch.zeros_like(leaf, requires_grad=False)
        calls = self._calls(replace(inputs, latents=leaf), halves, self._graph_limit, stop=True)
        with torch.enable_grad():
            for chunk, result in calls:
                if result.maps is None:
                    raise RuntimeError("a gradient of maps without captured maps")
                [gradient] = torch.autograd.grad(result.maps, leaf, share[chunk])
                total += gradient
        return total

    def graph_bytes_per_lane(self, inputs: PassInputs) -> int:
        """Return what one lane's graph up to the maps takes, measured by building it once.

        A probe of the machine is no part of any row: it does not count as an evaluation.
        """
        leaf = inputs.latents.detach().requires_grad_()
        first = call_of_all(self.lanes, replace(inputs, latents=leaf), [Half.CONDITIONAL])[:1]
        return graph_bytes(
            lambda: self._call(first, inputs, stop=True), self.model.unet.parameters()
        )

    def _run(
        self, inputs: PassInputs, halves: Sequence[Half], limit: int | None, *, stop: bool = False
    ) -> Pass:
        """Run all lanes of ``halves`` in as few calls as ``limit`` allows."""
        results = [result for _, result in self._calls(inputs, halves, limit, stop=stop)]
        predictions = self._by_half(halves, [result.prediction for result in results])
        maps = self._by_half(halves, [result.maps for result in results])
        counted = [maps[half] for half in self.lanes.map_halves if half in maps]
        features = self._by_half(halves, [result.features for result in results])
        mean = torch.stack(counted).mean(dim=0) if counted else None
        if mean is not None and self.lanes.gate is not None:
            mean = mean.squeeze(1)  # the one lane's maps are those of all its parts
        conditional = features.get(Half.CONDITIONAL)
        return Pass(predictions, mean, None if conditional is None else conditional[:, 0])

    def _by_half(
        self, halves: Sequence[Half], chunks: Sequence[Float[Tensor, "_ ..."] | None]
    ) -> dict[Half, Float[Tensor, "row lane_of_row ..."]]:
        present = [chunk for chunk in chunks if chunk is not None]
        if not present:
            return {}
        lanes = torch.cat(present)  # [half*row*lane_of_row, ...]
        sizes = (len(halves), len(self.lanes.rows), self.lanes.lanes_per_row)
        by_half = lanes.unflatten(0, sizes)  # [half, row, lane_of_row, ...]
        return dict(zip(halves, by_half, strict=True))

    def _calls(
        self, inputs: PassInputs, halves: Sequence[Half], limit: int | None, *, stop: bool
    ) -> Iterator[tuple[slice, _Result]]:
        """Yield the lanes of each call and its result."""
        everything = call_of_all(self.lanes, inputs, halves)
        for chunk in _chunks(self.lanes.num_lanes, len(halves), limit):
            call = everything[chunk]
            self._num_samples += len(call.latents)
            yield chunk, self._call(call, inputs, stop=stop)

    def _call(self, call: Call, inputs: PassInputs, *, stop: bool) -> _Result:
        self.bank.use(call.weights)
        if self.contexts is not None and isinstance(call.weights, Gate):
            if call.contexts is None:
                raise RuntimeError("gated lanes without texts")
            self.contexts.use(call.weights, call.contexts)
        if self.capture is not None:
            self.capture.start(stop_after_maps=stop)
        prediction = None
        # The capture switches gradients off half-way; the block puts the mode back.
        with suppress(MapsCompleteError), torch.set_grad_enabled(torch.is_grad_enabled()):
            prediction = self.model.run_unet(call.latents, inputs.t, call.conditions)
        maps = None if self.capture is None else self.capture.take()
        features = None if self.features is None else self.features.take()
        return _Result(prediction, maps, features)


def _chunks(num_lanes: int, num_halves: int, limit: int | None) -> Iterator[slice]:
    """Yield the lanes of each call: all at once where the limit allows, else half by half."""
    total = num_lanes * num_halves
    size, whole = (total, total) if limit is None or total <= limit else (limit, num_lanes)
    for first in range(0, total, whole):
        for start in range(first, first + whole, size):
            yield slice(start, min(start + size, first + whole))
