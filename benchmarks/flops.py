"""FLOPs of one image on the architectures of Stable Diffusion 1.5 and XL, on meta tensors.

    python -m benchmarks.flops

Each kind of pass is counted once, for one sample, with the sampler's own attention on a UNet
without storage; the loss, which reads values, is replaced by a sum of the maps. Totals multiply
these costs by how often a schedule runs them: ours as the sampler does, the published order with
every round a full pass of both guidance halves, and a backward pass through both on every update.
LoRAs are left out: what they cost is the same for every method that runs as many samples.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import sd15_size, sdxl_size
from clora_core.diffusion.attention import (
    MapCapture,
    MapsCompleteError,
    capturing,
    choose_map_layers,
    measure_cross_attention,
)
from clora_core.diffusion.contexts import TextContexts, gated_attention
from clora_core.lora.gate import Gate
from clora_core.recipe.config import SamplerConfig, sampler_preset
from clora_core.recipe.cost import first_phase_evaluations
from clora_core.recipe.methods import METHODS

TERA = 1e12
NUM_TOKENS = 77


@dataclass(frozen=True)
class Architecture:
    """A base model's shape at its own size."""

    name: str
    make_unet: Callable[[], UNet2DConditionModel]
    latent_side: int
    text_width: int
    pooled_width: int = 0


ARCHITECTURES = (
    Architecture("Stable Diffusion 1.5, 512 px", sd15_size.unet, 64, 768),
    Architecture(
        "Stable Diffusion XL, 1024 px",
        sdxl_size.unet,
        sdxl_size.LATENT_SIDE,
        sdxl_size.TEXT_WIDTH,
        sdxl_size.POOLED_WIDTH,
    ),
)


@dataclass(frozen=True)
class PassCosts:
    """TFLOP of one sample through the UNet, by kind of pass; ``contexts`` are keys and values."""

    forward: float
    to_maps: float
    to_maps_with_gradient: float
    contexts: float = 0.0


class Counted:
    """One architecture's UNet on meta tensors, and what its passes cost."""

    def __init__(self, architecture: Architecture) -> None:
        with torch.device("meta"):
            self._unet = architecture.make_unet().eval().requires_grad_(requires_grad=False)
            self._text = torch.zeros(1, NUM_TOKENS, architecture.text_width)
            self._latents = torch.zeros(1, 4, architecture.latent_side, architecture.latent_side)
            self._t = torch.zeros(1)
            self._added = None
            if architecture.pooled_width:
                pooled = torch.zeros(1, architecture.pooled_width)
                self._added = {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}
        lengths = measure_cross_attention(self._unet, lambda: self._run(self._latents))
        self._layers = choose_map_layers(
            lengths, latent_side=architecture.latent_side, map_size=None
        )

    def plain(self) -> PassCosts:
        """Count each kind of pass of a lane of its own."""
        with capturing(self._unet, self._layers, torch.float32) as capture:
            return self._passes(capture)

    def gated(self, num_concepts: int) -> PassCosts:
        """Count each kind of pass of a gated lane."""
        num_parts = num_concepts + 1
        side = self._latents.shape[-1]
        with torch.device("meta"):
            masks = torch.zeros(1, num_parts, side, side)
            lane = torch.zeros(1, dtype=torch.long)
            gate = Gate(masks, torch.zeros(1, num_parts, 0))
        text = self._text.expand(num_parts, -1, -1)
        with FlopCounterMode(display=False) as counter:
            contexts = TextContexts.project(self._unet, text, num_parts, None)
        contexts.use(gate, lane)
        capture = MapCapture(len(self._layers.names), torch.float32)
        with gated_attention(self._unet, contexts, capture, self._layers.names):
            costs = self._passes(capture)
        projected = counter.get_total_flops() / TERA
        return PassCosts(
            costs.forward, costs.to_maps, costs.to_maps_with_gradient, contexts=projected
        )

    def _passes(self, capture: MapCapture) -> PassCosts:
        return PassCosts(
            forward=self._count(capture, stop=False, gradient=False),
            to_maps=self._count(capture, stop=True, gradient=False),
            to_maps_with_gradient=self._count(capture, stop=True, gradient=True),
        )

    def _count(self, capture: MapCapture, *, stop: bool, gradient: bool) -> float:
        leaf = self._latents.detach().requires_grad_(gradient)
        with FlopCounterMode(display=False) as counter:
            capture.start(stop_after_maps=stop)
            with torch.set_grad_enabled(gradient):
                # Times one: the counter cannot watch a leaf enter the model.
                with suppress(MapsCompleteError), torch.set_grad_enabled(gradient):
                    self._run(leaf * 1)
                maps = capture.take()
                if gradient:
                    torch.autograd.grad(maps.sum(), leaf)
        return counter.get_total_flops() / TERA

    def _run(self, latents: torch.Tensor) -> None:
        self._unet(latents, self._t, self._text, added_cond_kwargs=self._added)


def ours(costs: PassCosts, config: SamplerConfig, num_concepts: int, *, joint: bool) -> float:
    """Return TFLOP of one CLoRA image with our passes."""
    num_variants = num_concepts + 1
    updates = sum(config.num_updates(step) for step in range(config.num_steps))
    update_steps = sum(config.num_updates(step) > 0 for step in range(config.num_steps))
    backward = costs.to_maps_with_gradient - costs.to_maps
    total = 2 * num_variants * config.num_steps * costs.forward
    total += num_variants * (updates - update_steps) * costs.to_maps
    total += num_variants * updates * (backward if joint else costs.to_maps_with_gradient)
    return total


def gated(costs: PassCosts, config: SamplerConfig, num_concepts: int) -> float:
    """Return TFLOP of one image of ``clora-gated``."""
    method = METHODS["clora-gated"]
    updates = sum(
        method.num_updates(step, num_concepts, config) for step in range(config.num_steps)
    )
    backward = costs.to_maps_with_gradient - costs.to_maps
    total = 2 * config.num_steps * costs.forward + costs.to_maps + updates * backward
    return total + 2 * costs.contexts


def freefuse(plain: PassCosts, costs: PassCosts, config: SamplerConfig, num_concepts: int) -> float:
    """Return TFLOP of one image of ``freefuse``, its first phase not shared."""
    phase = first_phase_evaluations("freefuse", num_concepts, config)
    total = 2 * config.num_steps * costs.forward + (phase - 1) * plain.forward + plain.to_maps
    return total + 2 * costs.contexts


def published(costs: PassCosts, config: SamplerConfig, num_concepts: int) -> float:
    """Return TFLOP of one CLoRA image in the published order."""
    num_variants = num_concepts + 1
    updates = sum(config.num_updates(step) for step in range(config.num_steps))
    update_steps = sum(config.num_updates(step) > 0 for step in range(config.num_steps))
    rounds = config.num_steps + updates - update_steps
    backward = costs.to_maps_with_gradient - costs.to_maps
    return 2 * num_variants * (rounds * costs.forward + updates * backward)


def table(architecture: Architecture) -> list[str]:
    """Return the lines of one architecture's table."""
    counted = Counted(architecture)
    costs = counted.plain()
    config = sampler_preset("paper")
    plain = 2 * config.num_steps * costs.forward
    lines = [
        f"{architecture.name}: TFLOP a sample: forward {costs.forward:.3f}, to the maps "
        f"{costs.to_maps:.3f} ({costs.to_maps / costs.forward:.1%}), with gradient "
        f"{costs.to_maps_with_gradient:.3f}",
        "",
        "| K | plain | published order | clora, joint | clora, two-pass | clora-gated | freefuse |",
        "|---|---|---|---|---|---|---|",
    ]
    for num_concepts in (2, 3, 4, 8):
        in_one_lane = counted.gated(num_concepts)
        row = [
            published(costs, config, num_concepts),
            ours(costs, config, num_concepts, joint=True),
            ours(costs, config, num_concepts, joint=False),
            gated(in_one_lane, config, num_concepts),
            freefuse(costs, in_one_lane, config, num_concepts),
        ]
        cells = " | ".join(f"{value:.0f} ({value / plain:.2f}x)" for value in row)
        lines.append(f"| {num_concepts} | {plain:.0f} | {cells} |")
    return lines


def main() -> None:
    """Print the tables."""
    print("\n\n".join("\n".join(table(architecture)) for architecture in ARCHITECTURES))


if __name__ == "__main__":
    main()
