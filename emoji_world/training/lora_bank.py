"""All LoRAs trained at once: one batch, an equal part of it for each adapter.

The batch is [adapter, row]: a hook on each target layer multiplies every part with its own
factors in one batched product. Small models leave an accelerator idle, and this fills it; what
comes out of the bank is what peft would have trained, one adapter at a time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
CONVOLUTIONS = ("conv1", "conv2")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What a LoRA adapts.

    Attributes:
        name: Name of the LoRA.
        rank: Rank of every factor pair.
        feed_forward: Whether the UNet's feed-forward layers are adapted beside attention.
        convolutions: Whether its 3×3 convolutions are: then the file is a LoCon.
        text_encoder: Whether the text encoder's attention is.
    """

    name: str
    rank: int
    feed_forward: bool = False
    convolutions: bool = False
    text_encoder: bool = False

    def adapts(self, path: str) -> bool:
        """Return whether the layer at ``unet.…`` or ``text_encoder.…`` is adapted."""
        if path.startswith("text_encoder."):
            return self.text_encoder and path.endswith(TEXT)
        if path.endswith(ATTENTION):
            return True
        if path.endswith(FEED_FORWARD):
            return self.feed_forward
        return self.convolutions and ".resnets." in path and path.endswith(CONVOLUTIONS)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The two factors of one layer of one LoRA; the change of the weight is ``up @ down``."""

    down: Tensor
    up: Tensor


class LoraBank(nn.Module):
    """Factors of several LoRAs and the hooks that apply them, until ``close``."""

    def __init__(self, adapters: Sequence[Adapter], **models: nn.Module) -> None:
        """Hook every layer that some adapter adapts; untrained factors change nothing."""
        super().__init__()
        self.adapters = tuple(adapters)
        self._keys: dict[str, str] = {}
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        self._handles = []
        device = next(next(iter(models.values())).parameters()).device
        for prefix, model in models.items():
            for name, module in model.named_modules():
                # Released files say text_model; recent transformers name their modules without.
                name = name.removeprefix("text_model.")
                path = (
                    f"{prefix}.text_model.{name}"
                    if prefix == "text_encoder"
                    else f"{prefix}.{name}"
                )
                if any(adapter.adapts(path) for adapter in adapters):
                    self._attach(path, module, device)

    def _attach(self, path: str, module: nn.Module, device: torch.device) -> None:
        key = path.replace(".", "/")
        self._keys[path] = key
        count, rank = len(self.adapters), max(a.rank for a in self.adapters)
        if isinstance(module, nn.Conv2d):
            # Few LoRAs adapt convolutions: only theirs are kept, and applied one by one.
            own = [a for a in self.adapters if a.adapts(path)]
            down = torch.randn(len(own), own[0].rank, module.in_channels, *module.kernel_size)
            self.down[key] = nn.Parameter((down / math.sqrt(down[0, 0].numel())).to(device))
            up = torch.zeros(len(own), module.out_channels, own[0].rank, 1, 1, device=device)
            self.up[key] = nn.Parameter(up)
            self._handles.append(module.register_forward_hook(self._conv_hook(path, key)))
            return
        if not isinstance(module, nn.Linear):
            raise TypeError(
                f"{path}: can adapt Linear and Conv2d layers, not {type(module).__name__}"
            )
        # Ranks beyond an adapter's own are zero in both factors, so no gradient ever fills them.
        used = torch.zeros(count, rank, 1)
        for index, adapter in enumerate(self.adapters):
            used[index, : adapter.rank if adapter.adapts(path) else 0] = 1
        down = torch.randn(count, rank, module.in_features) / math.sqrt(module.in_features) * used
        self.down[key] = nn.Parameter(down.to(device))
        self.up[key] = nn.Parameter(torch.zeros(count, module.out_features, rank, device=device))
        self._handles.append(module.register_forward_hook(self._linear_hook(key)))

    def _linear_hook(self, key: str) -> Any:
        def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            count = len(self.adapters)
            parts = args[0].reshape(count, -1, args[0].shape[-1])
            down, up = self.down[key], self.up[key]
            change = (parts.to(output.dtype) @ down.to(output.dtype).mT) @ up.to(output.dtype).mT
            return output + change.view_as(output)

        return add

    def _conv_hook(self, path: str, key: str) -> Any:
        own = [i for i, a in enumerate(self.adapters) if a.adapts(path)]

        def add(module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            parts = list(args[0].chunk(len(self.adapters)))
            changed = list(output.chunk(len(self.adapters)))
            for slot, index in enumerate(own):
                low = functional.conv2d(
                    parts[index],
                    self.down[key][slot].to(output.dtype),
                    stride=module.stride,
                    padding=module.padding,
                )
                changed[index] = changed[index] + functional.conv2d(
                    low, self.up[key][slot].to(output.dtype)
                )
            return torch.cat(changed)

        return add

    def close(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def factors(self, index: int) -> dict[str, Factors]:
        """Return layer path -> factors of one adapter, as linear or convolution weights."""
        adapter = self.adapters[index]
        result: dict[str, Factors] = {}
        for path, key in self._keys.items():
            if not adapter.adapts(path):
                continue
            down, up = self.down[key].detach(), self.up[key].detach()
            slot, rank = self._slot(index, path), adapter.rank
            result[path] = Factors(
                down=down[slot, :rank].cpu().clone(), up=up[slot, :, :rank].cpu().clone()
            )
        return result

    def _slot(self, index: int, path: str) -> int:
        """Return where an adapter's factors are: of convolutions only its users' are kept."""
        if self.down[self._keys[path]].ndim == 3:
            return index
        own = [number for number, a in enumerate(self.adapters) if a.adapts(path)]
        return own.index(index)

    @torch.no_grad()
    def fill(self, index: int, factors: Mapping[str, Factors]) -> None:
        """Give one adapter finished factors to go on from: the inverse of ``factors``.

        Raises:
            ValueError: They are not those of the layers that the adapter adapts.
        """
        adapter = self.adapters[index]
        adapted = {path for path in self._keys if adapter.adapts(path)}
        if adapted != set(factors):
            raise ValueError(
                f"{adapter.name}: factors should be of the {len(adapted)} layers that it adapts, "
                f"got {len(factors)}, of which {len(adapted & set(factors))} are among them"
            )
        for path, own in factors.items():
            down, up = self.down[self._keys[path]], self.up[self._keys[path]]
            slot = self._slot(index, path)
            down[slot, : adapter.rank] = own.down.to(down)
            up[slot, :, : adapter.rank] = own.up.to(up)
