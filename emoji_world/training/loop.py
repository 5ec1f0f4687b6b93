"""Training loops that end when their time is up and go on where they were cut off.

A schedule is a share of the time budget, not a count of steps, so one recipe fits a laptop and
an accelerator. The price: two runs differ in how many steps they make, so the committed weights
are named by their digests and not by the recipe alone.
"""

import math
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn


def timed_steps(budget_s: float, elapsed_s: float = 0.0) -> Iterator[tuple[int, float]]:
    """Yield step number and share of the budget used until the budget is used up."""
    start = time.monotonic() - elapsed_s
    step = 0
    while (share := (time.monotonic() - start) / budget_s) < 1:
        yield step, share
        step += 1


def learning_rate(peak: float, step: int, share: float, *, warmup_steps: int = 200) -> float:
    """Return the rate: linear warm-up, flat to half of the budget, cosine down to 1 %."""
    warm = min(1.0, (step + 1) / warmup_steps)
    decay = 1.0 if share < 0.5 else 0.5 * (1 + math.cos(math.pi * (2 * share - 1)))
    return peak * warm * max(decay, 0.01)


def optimizer_of(parameters: Any, *, weight_decay: float = 0.01) -> torch.optim.AdamW:
    """Return AdamW over the parameters, fused on an accelerator."""
    trained = list(parameters)
    return torch.optim.AdamW(
        trained, lr=1e-3, betas=(0.9, 0.99), weight_decay=weight_decay, fused=trained[0].is_cuda
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Write the learning rate into every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """A running average of a module's weights, which samples better than the last step."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start from the module's present weights."""
        self._decay = decay
        self._updates = 0
        self._live = [value for value in module.state_dict().values() if value.is_floating_point()]
        self._mean = [value.detach().clone() for value in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._mean, self._live, 1 - decay)  # pyright: ignore[reportPrivateUsage]

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and present weights; a second call takes it back."""
        for live, mean in zip(self._live, self._mean, strict=True):
            held = live.clone()
            live.copy_(mean)
            mean.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs."""
        return {"updates": self._updates, "mean": self._mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of ``state_dict``."""
        self._updates = state["updates"]
        for mean, stored in zip(self._mean, state["mean"], strict=True):
            mean.copy_(stored)


class Checkpoint:
    """The state of a stage on disk, replaced in one move so that a cut never spoils it."""

    def __init__(self, path: Path, parts: dict[str, Any], *, every_s: float = 60.0) -> None:
        """Keep ``parts`` (anything with state_dict and load_state_dict) at ``path``."""
        self._path, self._parts, self._every_s = path, parts, every_s
        self._saved_at = time.monotonic()

    def restore(self) -> float:
        """Load the stored state if there is one and return the seconds it had trained."""
        if not self._path.is_file():
            return 0.0
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        return float(state["elapsed_s"])

    def save_if_due(self, elapsed_s: float) -> None:
        """Store the state if the last store is long enough ago."""
        if time.monotonic() - self._saved_at < self._every_s:
            return
        self._saved_at = time.monotonic()
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts.items()}
        state["elapsed_s"] = elapsed_s
        partial = self._path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._path)


def autocast(device: torch.device) -> torch.autocast:
    """Return the mixed precision of training: bfloat16 where the device is fast at it."""
    fast = device.type != "cpu" or _bfloat16_processor()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


@lru_cache(maxsize=1)
def _bfloat16_processor() -> bool:
    """Return whether the processor multiplies bfloat16 itself; others take many times as long."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and "avx512_bf16" in flags.read_text()


def compiled(model: Any, device: torch.device) -> Any:
    """Return the model as one compiled graph on an accelerator, as it is on a processor.

    Small models spend their time on launching kernels and moving activations, which fusing saves.
    ``EMOJI_WORLD_EAGER`` in the environment does without, where the compiler fails.
    """
    eager = device.type != "cuda" or "EMOJI_WORLD_EAGER" in os.environ
    return model if eager else torch.compile(model, dynamic=False)
