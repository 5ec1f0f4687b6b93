"""CLoRA at Stable Diffusion 1.5's size on one GPU: speed, share of the card's peak, memory.

    python -m benchmarks.gpu [--num-steps N] [--compile]

Random weights, float16, 512 px, two concepts, preset ``paper``. Everything is measured in this one
run: the card's own matrix peak, our sampler at several batch sizes, the sequential reference
(one image, one variant at a time, peft's adapters, attention written out), and the peak memory with
2, 4 and 8 concepts with the joint gradient and with the two-pass one.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.resnet import ResnetBlock2D

from benchmarks.flops import PassCosts, measure, ours
from benchmarks.sd15_size import NOUNS, pipeline, write_loras
from clora_core.composer import Composer
from clora_core.diffusion.model import DiffusionModel, base_model_of
from clora_core.lora.cache import LoraCache
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage

GIB = 2**30


def matmul_peak_tflops() -> float:
    """Return the rate of a large float16 matrix product on this card."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12


def make_rows(
    loras: Sequence[Path], config: SamplerConfig, *, concepts: int, count: int, method: str
) -> list[Row]:
    """Return ``count`` rows with ``concepts`` LoRAs each."""
    uses = tuple(
        Lora(name=p.stem, uri=str(p), digest=p.stem, kind="concept", subject=n, trigger="sks")
        for p, n in zip(loras[:concepts], NOUNS, strict=False)
    )
    prompt = " and ".join(f"a {noun}" for noun in NOUNS[:concepts])
    return [
        Row(prompt=prompt, loras=uses, seed=seed, method=method, sampler=config)
        for seed in range(count)
    ]


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def compose(composer: Composer, rows: Sequence[Row]) -> None:
    """Make ``rows`` and insist that each was sampled; random weights may give flat images."""
    for result in composer.compose(rows):
        if not isinstance(result, ComposedImage):
            print(f"  (a row came back as {result.error}: {result.message})")


def speed(
    model: DiffusionModel,
    loras: Sequence[Path],
    config: SamplerConfig,
    costs: PassCosts,
    peak: float,
) -> None:
    """Print seconds an image and the share of the peak for several batch sizes."""
    composer = Composer(model, LoraCache(GIB))
    image_tflop = ours(costs, config, 2, joint=True)
    plain_tflop = 2 * config.num_steps * costs.forward
    for method, tflop, counts in (
        ("base", plain_tflop, (1, 8)),
        ("clora", image_tflop, (1, 2, 4, 8)),
    ):
        for count in counts:
            rows = make_rows(loras, config, concepts=2, count=count, method=method)
            compose(
                composer, make_rows(loras, _short(config), concepts=2, count=count, method=method)
            )
            seconds = timed(lambda rows=rows: compose(composer, rows)) / count
            share = tflop / seconds / peak
            print(
                f"  {method:6} batch {count}: {seconds:6.2f} s an image, {share:5.1%} of peak",
                flush=True,
            )


def memory(model: DiffusionModel, loras: Sequence[Path], config: SamplerConfig) -> None:
    """Print peak memory above the weights for 2, 4 and 8 concepts."""
    for name, budget in (("joint", 2**50), ("two-pass", 1)):
        cells: list[str] = []
        for concepts in (2, 4, 8):
            rows = make_rows(loras, _short(config), concepts=concepts, count=1, method="clora")
            composer = Composer(model, LoraCache(GIB), graph_budget_bytes=budget)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            compose(composer, rows)
            cells.append(
                f"K={concepts} {(torch.cuda.max_memory_allocated() - before) / GIB:.2f} GiB"
            )
        print(f"  {name:8}: {', '.join(cells)}", flush=True)


def _short(config: SamplerConfig) -> SamplerConfig:
    return config.model_copy(
        update={
            "num_steps": 2,
            "guide_until_step": 1,
            "refine_steps": (0,),
            "num_refine_updates": 1,
        }
    )


def sequential(pipe: StableDiffusionPipeline, row: Row) -> tuple[float, float]:
    """Return seconds and peak GiB of one image by the sequential reference."""
    from oracles.sequential import sequential_sample

    short = replace(row, sampler=_short(row.sampler))
    sequential_sample(pipe, short)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = timed(lambda: sequential_sample(pipe, row))
    return seconds, (torch.cuda.max_memory_allocated() - before) / GIB


def compile_blocks(model: DiffusionModel) -> None:
    """Compile the UNet's residual blocks; transformer blocks hold the captured attention."""
    for module in model.unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.compile(dynamic=False)


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=50)
    parser.add_argument("--compile", action="store_true", help="also with compiled residual blocks")
    parser.add_argument("--skip-sequential", action="store_true")
    options = parser.parse_args()
    config = SamplerConfig(num_steps=options.num_steps)
    costs = measure()
    folder = Path(tempfile.mkdtemp())
    with torch.device("cuda"):
        pipe = pipeline(folder)
    pipe.to("cuda", torch.float16)
    loras = write_loras(pipe.unet, folder, count=8)
    model = base_model_of(pipe, "cuda")
    peak = matmul_peak_tflops()
    print(
        f"{torch.cuda.get_device_name()}: {peak:.0f} TFLOP/s in a float16 matrix product",
        flush=True,
    )
    print("our sampler", flush=True)
    speed(model, loras, config, costs, peak)
    print("peak memory above the weights, one image", flush=True)
    memory(model, loras, config)
    if not options.skip_sequential:
        [row] = make_rows(loras, config, concepts=2, count=1, method="clora")
        seconds, gib = sequential(pipe, row)
        print(
            f"sequential reference: {seconds:.2f} s an image, {gib:.2f} GiB above the weights",
            flush=True,
        )
    if options.compile:
        print("our sampler, residual blocks compiled", flush=True)
        compile_blocks(model)
        speed(model, loras, config, costs, peak)


if __name__ == "__main__":
    main()
