"""What fusing costs: seconds and memory on the embedded world, FLOPs on Stable Diffusion 1.5.

    python -m benchmarks.fusing

On the embedded world each recipe runs in a process of its own, on one thread, over the same pairs;
memory is what the process grew by beyond the loaded model. For Stable Diffusion 1.5 the UNet is on
meta tensors, with LoRAs of rank 16 on every attention projection, and FLOPs are counted: passes,
second moments and gradients, but not eigenvalues, whose cost is named as a cube.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
import yaml
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

import emoji_world
from benchmarks import sd15_size
from clora_core.composer import Composer
from clora_core.diffusion.model import load_base_model
from clora_core.fuse.ingredient import Ingredient
from clora_core.fuse.moments import Moments, recording
from clora_core.fuse.recipes import fuse
from clora_core.fuse.ziplora import Merger, attached, ziplora_loss
from clora_core.lora.cache import LoraCache
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.config import SamplerConfig, sampler_preset
from clora_core.recipe.cost import fusion_evaluations
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage

METHODS_THAT_FUSE = tuple(name for name, method in METHODS.items() if method.fused_by is not None)
PAIRS = (
    ("violet-cat", "pink-poodle"),
    ("chocolate-rabbit", "blue-penguin"),
    ("husky-dog", "polar-bear"),
    ("retro-robot", "azure-frog"),
)
"""The last one has convolutions."""

RANK = 16
GIB = 1024**3
TERA = 1e12
PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")


def peak_mib() -> float:
    """Return the most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_one(method: str, pair: Sequence[str]) -> dict[str, float]:
    """Fuse a pair in this process; return seconds, growth of memory and the final loss."""
    torch.set_num_threads(1)
    catalog = emoji_world.lora_catalog()
    entries = {one["name"]: one for one in yaml.safe_load(catalog.read_text())["loras"]}
    loras = [
        Lora(
            name=name,
            uri=str(catalog.parent / entries[name]["uri"]),
            digest=name,
            kind="concept",
            subject=entries[name]["subject"],
            trigger=entries[name]["trigger"],
        )
        for name in pair
    ]
    model = load_base_model(emoji_world.base_model_dir())
    targets = lora_targets(model.components)
    parts = [Ingredient(lora, read_lora(lora.uri, targets)) for lora in loras]
    composer, config = Composer(model, LoraCache(GIB)), sampler_preset("emoji")
    side = model.default_size_px

    def images(index: int) -> list[np.ndarray]:
        rows = [
            Row(
                prompt=f"a {loras[index].subject}",
                loras=(loras[index],),
                seed=seed,
                method="single",
                sampler=config,
                width=side,
                height=side,
            )
            for seed in range(config.ziplora_images)
        ]
        made = composer.compose(rows)
        return [one.image for one in made if isinstance(one, ComposedImage)]

    # References are there before fusing in a run that scores; here they are made first.
    drawn = [images(index) for index in range(len(loras))]
    before, start = peak_mib(), time.perf_counter()
    adapter = fuse(method, model, parts, config, lambda index: drawn[index])
    return {
        "seconds": time.perf_counter() - start,
        "grown_mib": peak_mib() - before,
        "final_loss": adapter.final_loss,
    }


def on_the_embedded_world() -> list[str]:
    """Return the lines of the table of seconds and memory."""
    lines = [
        "| method | pair | seconds | memory grown by (MiB) | final loss |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS_THAT_FUSE:
        seconds: list[float] = []
        for pair in PAIRS:
            command = [sys.executable, "-m", "benchmarks.fusing", "--one", method, *pair]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            seconds.append(found["seconds"])
            lines.append(
                f"| `{method}` | {' + '.join(pair)} | {found['seconds']:.2f} | "
                f"{found['grown_mib']:.0f} | {found['final_loss']:.3g} |"
            )
        lines.append(f"| `{method}` | median | {statistics.median(seconds):.2f} | | |")
    return lines


class OnMeta:
    """Stable Diffusion 1.5's UNet without storage."""

    def __init__(self) -> None:
        with torch.device("meta"):
            self.unet: UNet2DConditionModel = sd15_size.unet().eval()
            self.unet.requires_grad_(requires_grad=False)
            self._text = torch.zeros(1, 77, 768)
            self._latents = torch.zeros(1, 4, 64, 64)
            self._t = torch.zeros(1)
        self.projections = {
            name: module.weight.shape
            for name, module in self.unet.named_modules()
            if name.endswith(PROJECTIONS)
        }

    def run(self) -> torch.Tensor:
        """Return what one sample gives."""
        return self.unet(self._latents, self._t, self._text).sample

    def plain(self) -> float:
        """Return TFLOP of one sample."""
        with FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops() / TERA

    def recorded(self) -> tuple[float, float]:
        """Return TFLOP of one sample with moments of all spatial projections, and their GiB."""
        device = torch.device("meta")
        moments = {}
        for name, shape in self.projections.items():
            if not name.endswith((".attn2.to_k", ".attn2.to_v")):
                down = torch.zeros(RANK, shape[1], dtype=torch.float64, device=device)
                up = torch.zeros(shape[0], RANK, dtype=torch.float64, device=device)
                moments[name] = Moments([down, down], [up, up], shape[1], device)
        held = sum(
            8 * tensor.numel()
            for each in moments.values()
            for tensor in (each.total, *each.projected)
        )
        with FlopCounterMode(display=False) as counter, recording(self.unet, moments, 0):
            self.run()
        return counter.get_total_flops() / TERA, held / GIB

    def fitted(self) -> float:
        """Return TFLOP of one sample through the merged UNet, with the mergers' gradient."""
        mergers = {}
        with torch.device("meta"):
            for name, shape in self.projections.items():
                down, up = torch.zeros(RANK, shape[1]), torch.zeros(shape[0], RANK)
                columns = torch.zeros(2, shape[1]).requires_grad_()
                mergers[name] = Merger((down, down), (up, up), columns)
        with FlopCounterMode(display=False) as counter, attached(self.unet, mergers):
            predicted = self.run()
            ziplora_loss(predicted, predicted.detach(), mergers, 0.01).backward()
        return counter.get_total_flops() / TERA

    def cubes(self) -> float:
        """Return the sum of all layers' widths to the power of three, in 1e12."""
        return sum(shape[1] ** 3 for shape in self.projections.values()) / TERA


def on_stable_diffusion() -> list[str]:
    """Return the lines of the table of FLOPs."""
    meta, config = OnMeta(), SamplerConfig()
    plain, fitted = meta.plain(), meta.fitted()
    recorded, held = meta.recorded()
    image = 2 * config.num_steps * plain
    steps = 2 * config.mix_of_show_steps
    costs = {
        "mix-of-show": steps * recorded,
        "ziplora": 2 * config.ziplora_steps * (plain + fitted),
        "custom-diffusion": 0.0,
    }
    lines = [
        f"One sample: {plain:.3f} TFLOP, with moments {recorded:.3f}, with the mergers' gradient "
        f"{fitted:.3f}. Moments of all layers hold {held:.2f} GiB. Eigenvalues on top: about 10 "
        f"times {meta.cubes():.2f} TFLOP for mix-of-show, once.",
        "",
        "| method | UNet samples | TFLOP for two LoRAs | in plain images of 50 steps |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{method}` | {fusion_evaluations(method, 2, config):,} | {cost:,.0f} | "
        f"{cost / image:.2f} |"
        for method, cost in costs.items()
    ]
    return lines


def main() -> None:
    """Print both tables, or run one recipe for the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "LORA", "LORA"))
    asked = parser.parse_args().one
    if asked:
        print(json.dumps(run_one(asked[0], asked[1:])))
        return
    print("\n".join([*on_stable_diffusion(), "", *on_the_embedded_world()]))


if __name__ == "__main__":
    main()
