"""A diffusers pipeline with peft adapters, handled one image and one adapter set at a time.

The pieces that every oracle sampler needs: loading, switching adapters, encoding text, one UNet
call, solvers. Nothing is batched beyond the two halves of classifier-free guidance.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.loaders.lora_base import set_adapters_for_text_encoder
from safetensors.torch import load_file
from torch import Tensor

from clora_core.recipe.row import Lora, Row

Adapters = Sequence[tuple[str, float]]
"""Names and weights of what is active."""


def load_pipeline(folder: Path, *, dtype: torch.dtype = torch.float32) -> DiffusionPipeline:
    """Load a Stable Diffusion or SDXL folder."""
    is_sdxl = (folder / "text_encoder_2").exists()
    pipeline_class = StableDiffusionXLPipeline if is_sdxl else StableDiffusionPipeline
    pipeline = pipeline_class.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


_HELD: WeakKeyDictionary[DiffusionPipeline, dict[str, list[str]]] = WeakKeyDictionary()
"""For each pipeline the files it holds as adapters: path, then a name for each time it is held."""


@contextmanager
def loaded_loras(pipeline: DiffusionPipeline, loras: Sequence[Lora]) -> Iterator[list[str]]:
    """Load the files as adapters, give their names in order, and take them out again.

    May be nested: what an outer call has loaded is used as it is and stays, inactive after each
    use. A file that comes twice is two adapters.
    """
    held = _HELD.setdefault(pipeline, {})
    was_empty = not held
    names: list[str] = []
    added: list[str] = []
    for lora in loras:
        copies = held.setdefault(lora.uri, [])
        free = [name for name in copies if name not in names]
        if not free:
            free = [f"lora_{sum(map(len, held.values()))}"]
            _load(pipeline, lora.uri, free[0])
            copies.append(free[0])
            added.append(free[0])
        names.append(free[0])
    if added:  # what was held before is as it should be, and both calls are slow
        pipeline.to(pipeline.unet.conv_in.weight.dtype)
        activate(pipeline, [])
    try:
        yield names
    finally:
        activate(pipeline, [])
        if was_empty:
            pipeline.unload_lora_weights()
            held.clear()
        elif added:
            pipeline.delete_adapters(added)
            for copies in held.values():
                copies[:] = [name for name in copies if name not in added]


def _load(pipeline: DiffusionPipeline, path: str, name: str) -> None:
    weights = load_file(path)
    if not any(key.startswith(("unet.", "text_encoder", "lora_")) for key in weights):
        # peft's own names: diffusers would load nothing and call it success.
        weights = {f"unet.{key}": tensor for key, tensor in weights.items()}
    with warnings.catch_warnings():
        # peft wonders at a second adapter; several are what this is about.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        pipeline.load_lora_weights(weights, adapter_name=name)


def activate(
    pipeline: DiffusionPipeline, adapters: Adapters, *, in_text: Adapters | None = None
) -> None:
    """Make exactly these adapters active; in the text encoders those of ``in_text``, if given."""
    pipeline.unet.set_adapters([name for name, _ in adapters], [weight for _, weight in adapters])
    activate_in_text(pipeline, adapters if in_text is None else in_text)


def activate_in_text(pipeline: DiffusionPipeline, adapters: Adapters) -> None:
    """Make exactly these adapters active in the text encoders; the UNet keeps what it has."""
    names, weights = [name for name, _ in adapters], [weight for _, weight in adapters]
    for encoder in _text_encoders(pipeline):
        set_adapters_for_text_encoder(names, encoder, weights)


def _text_encoders(pipeline: DiffusionPipeline) -> list[Any]:
    second = getattr(pipeline, "text_encoder_2", None)
    return [pipeline.text_encoder] + ([] if second is None else [second])


# --------------------------------------------------------------------------------- text and UNet


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What the UNet hears: the unconditional half first, only the conditional without guidance."""

    states: Tensor  # [halves, 77, width]
    added: dict[str, Tensor] | None


def encode(pipeline: DiffusionPipeline, row: Row, prompt: str, *, guided: bool) -> Conditioning:
    """Encode one prompt and the row's negative prompt with the adapters now active."""
    asked: dict[str, Any] = {
        "prompt": prompt,
        "device": pipeline.device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": guided,
        "negative_prompt": row.negative_prompt if guided else None,
    }
    with torch.no_grad():
        positive, negative, *pooled = pipeline.encode_prompt(**asked)
    states = torch.cat([negative, positive]) if guided else positive
    if not pooled:
        return Conditioning(states=states, added=None)
    positive_pooled, negative_pooled = pooled
    size = [row.height, row.width, 0, 0, row.height, row.width]
    return Conditioning(
        states=states,
        added={
            "text_embeds": torch.cat([negative_pooled, positive_pooled])
            if guided
            else positive_pooled,
            "time_ids": torch.tensor([size] * len(states)).to(states),
        },
    )


def predict(
    pipeline: DiffusionPipeline, solver: Any, latents: Tensor, timestep: Tensor, text: Conditioning
) -> Tensor:
    """Return the noise predictions [halves, channel, height, width] of one image's latents."""
    model_input = solver.scale_model_input(latents, timestep).to(text.states.dtype)
    predicted = pipeline.unet(
        torch.cat([model_input] * len(text.states)),
        timestep,
        encoder_hidden_states=text.states,
        added_cond_kwargs=text.added,
        return_dict=False,
    )[0]
    return predicted.to(latents.dtype)


def guide(predicted: Tensor, scale: float) -> Tensor:
    """Return the guided prediction [1, channel, height, width]; one half alone is itself."""
    if len(predicted) == 1:
        return predicted
    unconditional, conditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)


# --------------------------------------------------------------------- solver, noise and decoding

_SOLVERS = {
    "ddim": (DDIMScheduler, {}),
    "dpmpp": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "euler": (EulerDiscreteScheduler, {}),
}


def make_solver(pipeline: DiffusionPipeline, row: Row) -> Any:
    """Return diffusers' own solver, made from the model's scheduler config."""
    solver_class, settings = _SOLVERS[row.sampler.scheduler]
    solver = solver_class.from_config(pipeline.scheduler.config, **settings)
    solver.set_timesteps(row.sampler.num_steps, device=pipeline.device)
    return solver


def initial_latents(pipeline: DiffusionPipeline, row: Row, solver: Any) -> Tensor:
    """Draw the row's noise in float32 on the CPU, from its seed alone."""
    generator = torch.Generator("cpu").manual_seed(row.seed)
    factor = pipeline.vae_scale_factor
    shape = (1, pipeline.unet.config.in_channels, row.height // factor, row.width // factor)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    wide = torch.promote_types(pipeline.unet.dtype, torch.float32)
    return noise.to(pipeline.device, wide) * solver.init_noise_sigma


def decode(pipeline: DiffusionPipeline, latents: Tensor) -> np.ndarray:
    """Return the image, uint8 [height, width, 3]."""
    with torch.no_grad():
        scaled = latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
        pixels = pipeline.vae.decode(scaled, return_dict=False)[0]
    pixels = (pixels[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0)
    return (pixels * 255).round().to(torch.uint8).numpy()
