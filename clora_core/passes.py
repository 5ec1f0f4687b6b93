"""Passes of the UNet over the lanes: what each kind of pass needs, and nothing more.

A prediction needs both guidance halves and no graph. A latent update needs the maps alone, so its
pass takes the conditional half, stops behind the last map layer and keeps a graph only up to there.
Whatever is more than the limits runs in chunks; every pass is exact in any chunking.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.attention import MapCapture, MapsCompleteError
from clora_core.diffusion.model import BaseModel
from clora_core.diffusion.text import Conditions
from clora_core.lanes import LaneBatch
from clora_core.lora.bank import LoraBank
from clora_core.memory import graph_bytes


@dataclass(frozen=True)
class Pass:
    """What one pass gave; None for what was not asked for.

    Attributes:
        conditional: Predictions with the prompt.
        unconditional: Predictions with the negative prompt.
        maps: Attention maps, mean over layers, heads and the halves that count.
    """

    conditional: Float[Tensor, "row variant channel height width"] | None = None
    unconditional: Float[Tensor, "row variant channel height width"] | None = None
    maps: Float[Tensor, "row variant position token"] | None = None


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
        map_halves: Guidance halves whose maps count: ``("cond",)`` or both.
    """

    model: BaseModel
    bank: LoraBank
    lanes: LaneBatch
    capture: MapCapture | None
    max_lanes: int | None = None
    max_graph_lanes: int | None = None
    map_halves: tuple[str, ...] = ("cond",)
    _num_samples: int = field(default=0, init=False)

    @property
    def evaluations(self) -> int:
        """Samples through the UNet so far, per row."""
        return self._num_samples // len(self.lanes.rows)

    def predict(self, latents: Tensor, t: Tensor, weights: Tensor) -> Pass:
        """Return both halves' predictions, and the maps where they are captured; no graph."""
        halves = ("cond",) if self.lanes.unconditional is None else ("uncond", "cond")
        with torch.no_grad():
            outputs, maps = self._chunked(latents, t, weights, halves, stop=False)
        predictions = dict(zip(halves, outputs, strict=True))
        return Pass(predictions["cond"], predictions.get("uncond"), self._mean(halves, maps))

    def maps_only(self, latents: Tensor, t: Tensor, weights: Tensor) -> Pass:
        """Return the maps from passes that stop behind the last map layer; no graph."""
        with torch.no_grad():
            _, maps = self._chunked(latents, t, weights, self._graph_halves, stop=True)
        return Pass(maps=self._mean(self._graph_halves, maps))

    def with_graph(self, latents: Tensor, t: Tensor, weights: Tensor, *, predict: bool) -> Pass:
        """Return maps with a graph to ``latents``, in one call; predictions too, without one."""
        with torch.enable_grad():
            outputs, maps = self._whole(latents, t, weights, self._graph_halves, stop=not predict)
            mean = self._mean(self._graph_halves, maps)
        if not predict:
            return Pass(maps=mean)
        predictions = dict(zip(self._graph_halves, outputs, strict=True))
        if self.lanes.unconditional is not None and "uncond" not in predictions:
            with torch.no_grad():
                [other], _ = self._whole(latents.detach(), t, weights, ("uncond",), stop=False)
            predictions["uncond"] = other
        return Pass(predictions["cond"], predictions.get("uncond"), mean)

    def map_gradient(
        self, latents: Tensor, t: Tensor, weights: Tensor, map_gradients: Tensor
    ) -> Float[Tensor, "row channel height width"]:
        """Return the gradient at ``latents`` from the maps' gradients, chunk by chunk.

        The second pass of the two-pass gradient: only one chunk's graph is alive at a time, so
        memory does not grow with the number of concepts.
        """
        total = torch.zeros_like(latents)
        share = map_gradients.flatten(0, 1) / len(self._graph_halves)
        for half in self._graph_halves:
            for chunk in self._chunks(self._graph_limit):
                with torch.enable_grad():
                    leaf = latents.detach().requires_grad_()
                    inputs = leaf.repeat_interleave(self.lanes.num_variants, dim=0)[chunk]
                    _, maps = self._call(
                        inputs, t, self._conditions(half)[chunk], weights[chunk], stop=True
                    )
                    if maps is None:
                        raise RuntimeError("a gradient of maps without captured maps")
                    [gradient] = torch.autograd.grad(maps, leaf, share[chunk])
                total += gradient
        return total

    @property
    def fits_in_one_call(self) -> bool:
        """Whether the joint graph of all lanes stays within both limits."""
        num_lanes = self.lanes.num_lanes * len(self._graph_halves)
        return self._graph_limit is None or num_lanes <= self._graph_limit

    @property
    def _graph_limit(self) -> int | None:
        limits = [limit for limit in (self.max_lanes, self.max_graph_lanes) if limit is not None]
        return min(limits, default=None)

    def graph_bytes_per_lane(self, latents: Tensor, t: Tensor, weights: Tensor) -> int:
        """Return what one lane's graph up to the maps takes, measured by building it once."""
        leaf = latents[:1].detach().requires_grad_()
        one = slice(0, 1)
        num_samples = self._num_samples
        measured = graph_bytes(
            lambda: self._call(leaf, t, self._conditions("cond")[one], weights[one], stop=True),
            self.model.unet.parameters(),
        )
        self._num_samples = num_samples  # a probe of the machine is no part of any row
        return measured

    @property
    def _graph_halves(self) -> tuple[str, ...]:
        return ("cond",) if self.lanes.unconditional is None else self.map_halves

    def _conditions(self, half: str) -> Conditions:
        if half == "cond" or self.lanes.unconditional is None:
            return self.lanes.conditional
        return self.lanes.unconditional

    def _whole(
        self, latents: Tensor, t: Tensor, weights: Tensor, halves: tuple[str, ...], *, stop: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run all lanes of ``halves`` in one call."""
        inputs = latents.repeat_interleave(self.lanes.num_variants, dim=0)
        conditions = Conditions.join([self._conditions(half) for half in halves])
        times = len(halves)
        output, maps = self._call(
            inputs.repeat(times, 1, 1, 1), t, conditions, weights.repeat(times, 1), stop=stop
        )
        return self._by_half(output, times), self._by_half(maps, times)

    def _chunked(
        self, latents: Tensor, t: Tensor, weights: Tensor, halves: tuple[str, ...], *, stop: bool
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run all lanes of ``halves`` in as few calls as ``max_lanes`` allows."""
        total = self.lanes.num_lanes * len(halves)
        if self.max_lanes is None or total <= self.max_lanes:
            return self._whole(latents, t, weights, halves, stop=stop)
        inputs = latents.repeat_interleave(self.lanes.num_variants, dim=0)
        outputs: list[Tensor] = []
        maps: list[Tensor] = []
        for half in halves:
            pieces = [
                self._call(
                    inputs[chunk], t, self._conditions(half)[chunk], weights[chunk], stop=stop
                )
                for chunk in self._chunks(self.max_lanes)
            ]
            outputs += self._by_half(_cat([output for output, _ in pieces]), 1)
            maps += self._by_half(_cat([found for _, found in pieces]), 1)
        return outputs, maps

    def _chunks(self, limit: int | None) -> Iterator[slice]:
        size = limit or self.lanes.num_lanes
        for start in range(0, self.lanes.num_lanes, size):
            yield slice(start, start + size)

    def _by_half(self, lanes: Tensor | None, num_halves: int) -> list[Tensor]:
        if lanes is None:
            return []
        return list(lanes.unflatten(0, (num_halves, len(self.lanes.rows), self.lanes.num_variants)))

    def _mean(self, halves: tuple[str, ...], maps: list[Tensor]) -> Tensor | None:
        if not maps:
            return None
        counted = [found for half, found in zip(halves, maps, strict=True) if self._counts(half)]
        return sum(counted[1:], start=counted[0]) / len(counted)

    def _counts(self, half: str) -> bool:
        return half in self._graph_halves

    def _call(
        self, inputs: Tensor, t: Tensor, conditions: Conditions, weights: Tensor, *, stop: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        self.bank.use(weights)
        if self.capture is not None:
            has_graph = torch.is_grad_enabled()
            self.capture.start(stop_after_maps=stop, gradient_until_maps=has_graph and not stop)
        self._num_samples += len(inputs)
        output: Tensor | None = None
        # The capture may switch gradients off half-way; the block switches them back.
        with suppress(MapsCompleteError), torch.set_grad_enabled(torch.is_grad_enabled()):
            [output] = self.model.unet(
                inputs.to(self.model.dtype),
                t,
                conditions.text,
                added_cond_kwargs=conditions.added(),
                return_dict=False,
            )
        maps = None if self.capture is None else self.capture.take()
        return None if output is None else output.to(self.model.precise_dtype), maps


def _cat(pieces: list[Tensor | None]) -> Tensor | None:
    whole = [piece for piece in pieces if piece is not None]
    return torch.cat(whole) if whole else None
