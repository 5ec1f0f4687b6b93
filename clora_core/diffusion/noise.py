"""The noise that an image starts from."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.model import DiffusionModel


def initial_noise(
    model: DiffusionModel, seeds: Sequence[int], height_px: int, width_px: int
) -> Float[Tensor, "row channel height width"]:
    """Return each row's starting noise of unit variance, drawn on the CPU in float32."""
    shape = (1, model.latent_channels, *model.latent_shape(width_px, height_px))
    noise = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds]
    return torch.cat(noise).to(model.device, model.precise_dtype)
