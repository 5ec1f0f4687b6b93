"""FLOPs of one image on the Stable Diffusion 1.5 architecture, counted on meta tensors.

    python -m benchmarks.flops

Each kind of pass is counted once, for one sample, with the sampler's own map capture on a UNet
without storage; the loss, which reads values, is replaced by a sum of the maps. Totals multiply
these costs by how often a schedule runs them: ours as the sampler does, the published order with
every round a full pass of both guidance halves, and a backward pass through both on every update.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sd15_size import unet
from clora_core.diffusion.attention import (
    MapsCompleteError,
    capturing,
    choose_map_layers,
    measure_cross_attention,
)
from clora_core.recipe.config import SamplerConfig, sampler_preset

TERA = 1e12


@dataclass(frozen=True)
class PassCosts:
    """TFLOP of one sample through the UNet, by kind of pass."""

    forward: float
    to_maps: float
    to_maps_with_gradient: float


def measure() -> PassCosts:
    """Count each kind of pass for one sample at 512 px."""
    with torch.device("meta"):
        model = unet().eval().requires_grad_(requires_grad=False)
        text = torch.zeros(1, 77, 768)
        latents = torch.zeros(1, 4, 64, 64)
        t = torch.zeros(1)
    lengths = measure_cross_attention(model, lambda: model(latents, t, text))
    layers = choose_map_layers(lengths, latent_side=64, map_size=None)

    def count(*, stop: bool, gradient: bool) -> float:
        leaf = latents.detach().requires_grad_(gradient)
        with (
            capturing(model, layers, torch.float32) as capture,
            FlopCounterMode(display=False) as counter,
        ):
            capture.start(stop_after_maps=stop)
            with torch.set_grad_enabled(gradient):
                # Times one: the counter cannot watch a leaf enter the model.
                _run(model, leaf * 1, t, text)
                maps = capture.take()
                if gradient:
                    torch.autograd.grad(maps.sum(), leaf)
        return counter.get_total_flops() / TERA

    return PassCosts(
        forward=count(stop=False, gradient=False),
        to_maps=count(stop=True, gradient=False),
        to_maps_with_gradient=count(stop=True, gradient=True),
    )


def _run(
    model: torch.nn.Module, latents: torch.Tensor, t: torch.Tensor, text: torch.Tensor
) -> None:
    with suppress(MapsCompleteError), torch.set_grad_enabled(torch.is_grad_enabled()):
        model(latents, t, text)


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


def published(costs: PassCosts, config: SamplerConfig, num_concepts: int) -> float:
    """Return TFLOP of one CLoRA image in the published order."""
    num_variants = num_concepts + 1
    updates = sum(config.num_updates(step) for step in range(config.num_steps))
    update_steps = sum(config.num_updates(step) > 0 for step in range(config.num_steps))
    rounds = config.num_steps + updates - update_steps
    backward = costs.to_maps_with_gradient - costs.to_maps
    return 2 * num_variants * (rounds * costs.forward + updates * backward)


def main() -> None:
    """Print the table."""
    costs = measure()
    print(
        f"TFLOP a sample: forward {costs.forward:.3f}, to the maps {costs.to_maps:.3f} "
        f"({costs.to_maps / costs.forward:.1%}), with gradient {costs.to_maps_with_gradient:.3f}"
    )
    config = sampler_preset("paper")
    plain = 2 * config.num_steps * costs.forward
    print("\n| K | plain | published order | ours, joint | ours, two-pass |\n|---|---|---|---|---|")
    for num_concepts in (2, 3, 4):
        row = [
            published(costs, config, num_concepts),
            ours(costs, config, num_concepts, joint=True),
            ours(costs, config, num_concepts, joint=False),
        ]
        cells = " | ".join(f"{value:.0f} ({value / plain:.1f}x)" for value in row)
        print(f"| {num_concepts} | {plain:.0f} | {cells} |")


if __name__ == "__main__":
    main()
