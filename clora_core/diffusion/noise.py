"""The noise that an image starts from, and that images have in training."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from clora_core.diffusion.model import DiffusionModel


def initial_noise(
    model: DiffusionModel, seeds: Sequence[int], height_px: int, width_px: int
) -> Float[Tensor, "row channel height width"]:
    """Return each row's starting noise of unit variance, drawn on the CPU in float32."""
    shape = (1, model.latent_channels, *model.latent_shape(width_px, height_px))
    noise = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds]
    return torch.cat(noise).to(model.device, model.precise_dtype)


class TrainingNoise:
    """Noises images to any of the time steps that a base model was trained with."""

    def __init__(self, model: DiffusionModel) -> None:
        self._scheduler: Any = DDPMScheduler.from_config(dict(model.scheduler_config))

    @property
    def num_timesteps(self) -> int:
        """Time steps of the training."""
        return self._scheduler.config["num_train_timesteps"]

    def add(
        self,
        latents: Float[Tensor, "image channel height width"],
        noise: Float[Tensor, "image channel height width"],
        t: Int[Tensor, ""],
    ) -> Float[Tensor, "image channel height width"]:
        """Return ``latents`` as they are at time step ``t``."""
        return self._scheduler.add_noise(latents, noise, t[None])
