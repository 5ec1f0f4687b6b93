"""Cross-attention maps: which layers give them, and how they are read while the UNet runs.

Only the layers at the map resolution need explicit probabilities; all others keep whatever fused
attention they have. The layers are found by measuring the model, not from a list of names: those
cross-attentions that are coarsest among the ones with at least 16 positions a side at the model's
own size (``recipe.map_sizes``). That is 16x16 of Stable Diffusion 1.5 at 512 px (arXiv 2403.19776,
section 3.2) and 32x32 of SDXL at 1024 px.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clora_core.recipe.map_sizes import map_side


class MapsCompleteError(Exception):
    """Raised inside the UNet once the last map is read and nothing else is wanted of the pass."""


@dataclass(frozen=True)
class MapLayers:
    """The layers that give maps.

    Attributes:
        names: Module names of the cross-attentions, in the order they run.
        downsampling: Latent positions a side for one map position.
    """

    names: tuple[str, ...]
    downsampling: int

    def map_shape(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """Return height and width of a map for latents of this size."""
        return -(-latent_height // self.downsampling), -(-latent_width // self.downsampling)


def choose_map_layers(
    query_lengths: dict[str, int], *, latent_side: int, map_size: int | None
) -> MapLayers:
    """Return the map layers among the cross-attentions measured at the model's own size.

    Args:
        query_lengths: Positions each cross-attention sees, by module name, in running order.
        latent_side: Side of the square latents they were measured with.
        map_size: Wanted side; None for the one that ``map_side`` chooses.

    Raises:
        ValueError: As ``map_side``.
    """
    sides = {name: round(length**0.5) for name, length in query_lengths.items()}
    wanted = map_side(sides.values(), map_size)
    names = tuple(name for name, side in sides.items() if side == wanted)
    return MapLayers(names, latent_side // wanted)


@dataclass
class MapCapture:
    """Reads the maps of one pass after the other.

    A graph reaches up to the last map at most: from there on gradients are off, and the caller's
    block puts the mode back.

    Attributes:
        num_layers: Map layers of the model.
        dtype: Precision of probabilities and maps.
    """

    num_layers: int
    dtype: torch.dtype
    _stop_after_maps: bool = field(default=False, init=False)
    _total: Float[Tensor, "lane *part position token"] | None = field(default=None, init=False)
    _num_seen: int = field(default=0, init=False)

    def start(self, *, stop_after_maps: bool) -> None:
        """Forget the last pass; end the next by ``MapsCompleteError`` once it has its last map."""
        self._stop_after_maps = stop_after_maps
        self._total, self._num_seen = None, 0

    def add(self, probabilities: Float[Tensor, "lane *part position token"]) -> None:
        """Take one layer's probabilities, already averaged over its heads."""
        self._total = probabilities if self._total is None else self._total + probabilities
        self._num_seen += 1
        if self._num_seen == self.num_layers:
            if self._stop_after_maps:
                raise MapsCompleteError
            torch.set_grad_enabled(False)

    def take(self) -> Float[Tensor, "lane *part position token"]:
        """Return the mean over layers, and keep no reference to its graph."""
        if self._total is None or self._num_seen != self.num_layers:
            raise RuntimeError(f"read {self._num_seen} of {self.num_layers} map layers")
        maps, self._total = self._total / self.num_layers, None
        return maps


class CapturingProcessor:
    """Cross-attention with explicit probabilities that are handed to a ``MapCapture``.

    Otherwise what diffusers' plain attention does for the layers of a UNet's transformer blocks.
    """

    def __init__(self, capture: MapCapture) -> None:
        self._capture = capture

    def __call__(
        self,
        attn: Any,
        hidden_states: Float[Tensor, "lane position channel"],
        encoder_hidden_states: Float[Tensor, "lane token text_channel"],
        attention_mask: Float[Tensor, "#lane_head #position token"] | None = None,
        temb: Float[Tensor, "lane time_channel"] | None = None,  # noqa: ARG002 - all processors'
    ) -> Float[Tensor, "lane position channel"]:
        """Return the layer's output, as every processor of diffusers does."""
        lanes = hidden_states.shape[0]
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))  # [lane*head, position, channel]
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        dtype = self._capture.dtype
        if attn.upcast_attention:  # Stable Diffusion 2's scores overflow in half precision
            query, key = query.float(), key.float()
        scores = torch.baddbmm(  # [lane*head, position, token]
            query.new_zeros(1, 1, 1) if attention_mask is None else attention_mask,
            query,
            key.mT,
            beta=0 if attention_mask is None else 1,
            alpha=attn.scale,
        )
        probabilities = scores.to(dtype).softmax(dim=-1)
        by_head = probabilities.unflatten(0, (lanes, -1))  # [lane, head, position, token]
        self._capture.add(by_head.mean(dim=1))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        output = attn.batch_to_head_dim(probabilities.to(value.dtype) @ value)
        for layer in attn.to_out:
            output = layer(output)
        return output / attn.rescale_output_factor


@contextmanager
def capturing(unet: nn.Module, layers: MapLayers, dtype: torch.dtype) -> Generator[MapCapture]:
    """Read maps from ``layers`` of ``unet`` inside the block; outside it is as it was before."""
    capture = MapCapture(len(layers.names), dtype)
    modules: list[Any] = [unet.get_submodule(name) for name in layers.names]
    originals = [module.processor for module in modules]
    try:
        for module in modules:
            module.processor = CapturingProcessor(capture)
        yield capture
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.processor = original


def cross_attentions(unet: nn.Module) -> list[tuple[str, Any]]:
    """Return name and module of every cross-attention of ``unet``."""
    return [
        (name, module)
        for name, module in unet.named_modules()
        if getattr(module, "is_cross_attention", False) or name.endswith("attn2")
    ]


def measure_cross_attention(unet: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Return the positions every cross-attention sees in one call of ``run``, in running order."""
    seen: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if kwargs.get("encoder_hidden_states") is not None:
                hidden = args[0] if args else kwargs["hidden_states"]
                seen[name] = hidden.shape[1]

        return hook

    handles = [
        module.register_forward_pre_hook(watch(name), with_kwargs=True)
        for name, module in cross_attentions(unet)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return seen
