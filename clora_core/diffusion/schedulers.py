"""The solvers, as diffusers has them, set up from the base model's own scheduler settings."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from clora_core.config import SamplerConfig

_CLASSES = {
    "ddim": DDIMScheduler,
    "dpmpp": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}


@runtime_checkable
class Solver(Protocol):
    """What the sampler uses of a diffusers scheduler."""

    timesteps: Tensor
    init_noise_sigma: float

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Return the sample as the model wants to see it."""
        ...

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor) -> Any:
        """Return the sample one step further."""
        ...


def make_solver(
    scheduler_config: Mapping[str, Any], config: SamplerConfig, device: torch.device
) -> Solver:
    """Return a fresh solver with its timesteps set.

    Latents are never clipped: clipping is for models of pixels, and with it blending predictions
    would no longer equal blending latents.
    """
    kind = _CLASSES[config.scheduler]
    solver: Any = kind.from_config(dict(scheduler_config), **_overrides(config.scheduler))
    solver.set_timesteps(config.num_steps, device=device)
    return solver


def _overrides(scheduler: str) -> dict[str, Any]:
    return {"clip_sample": False} if scheduler == "ddim" else {}
