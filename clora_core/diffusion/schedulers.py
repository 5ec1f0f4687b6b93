"""The solvers, as diffusers has them, set up from the base model's own scheduler settings."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from jaxtyping import Float, Num
from torch import Tensor

from clora_core.recipe.config import SamplerConfig

_CLASSES = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


@runtime_checkable
class Solver(Protocol):
    """What the sampler uses of a diffusers scheduler."""

    timesteps: Num[Tensor, " step"]
    init_noise_sigma: float

    def scale_model_input(
        self, sample: Float[Tensor, "*shape"], timestep: Num[Tensor, ""]
    ) -> Float[Tensor, "*shape"]:
        """Return the sample as the model wants to see it."""
        ...

    def step(
        self,
        model_output: Float[Tensor, "row channel height width"],
        timestep: Num[Tensor, ""],
        sample: Float[Tensor, "row channel height width"],
    ) -> Any:
        """Return the sample one step further."""
        ...


def make_solver(
    scheduler_config: Mapping[str, Any], config: SamplerConfig, device: torch.device
) -> Solver:
    """Return a fresh solver with its timesteps set.

    Latents are never clipped: clipping is for models of pixels, and with it blending predictions
    would no longer equal blending latents.
    """
    overrides = {"clip_sample": False} if config.scheduler == "ddim" else {}
    solver: Any = _CLASSES[config.scheduler].from_config(dict(scheduler_config), **overrides)
    solver.set_timesteps(config.num_steps, device=device)
    return solver
