"""A base model: the parts of a diffusers pipeline that the sampler calls, loaded once and frozen.

Stable Diffusion 1.x and XL folders load alike; what differs between them is how texts become
conditions, which ``clora_core.diffusion.text`` knows.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, Num
from torch import Tensor, nn

from clora_core.diffusion.attention import MapLayers, choose_map_layers, measure_cross_attention
from clora_core.diffusion.conditions import Conditions
from clora_core.recipe.weight_files import pipeline_variant


@dataclass(frozen=True)
class TextTower:
    """A tokenizer and the text encoder it belongs to; ``name`` is the pipeline component's."""

    name: str
    tokenizer: Any
    encoder: nn.Module

    @property
    def final_layer_norm(self) -> nn.Module:
        """What the last layer's states go through."""
        encoder: Any = self.encoder
        return getattr(encoder, "text_model", encoder).final_layer_norm


@dataclass
class DiffusionModel:
    """A frozen base model on one device.

    Attributes:
        unet: Noise predictor.
        vae: Autoencoder.
        towers: Text encoders: one for Stable Diffusion 1.x, two for XL.
        scheduler_config: Settings of the scheduler the model was published with.
        is_xl: The UNet takes pooled text and size conditions.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    towers: tuple[TextTower, ...]
    scheduler_config: Mapping[str, Any]
    is_xl: bool
    zeros_for_empty_negative: bool = False
    _map_layers: dict[int | None, MapLayers] = field(default_factory=dict, init=False)

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the UNet's weights."""
        return self.unet.dtype

    @property
    def precise_dtype(self) -> torch.dtype:
        """Precision of latents, maps and loss: float32, or float64 for a float64 model."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def image_scale(self) -> int:
        """Pixels a side for one latent position."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.unet.config["in_channels"]

    @property
    def default_size_px(self) -> int:
        """Side of the square images the model was made for."""
        return self.unet.config["sample_size"] * self.image_scale

    @property
    def text_window(self) -> int:
        """Tokens that every text encoder reads at once, start and end included."""
        encoders: list[Any] = [tower.encoder for tower in self.towers]
        return min(
            *(tower.tokenizer.model_max_length for tower in self.towers),
            *(encoder.config.max_position_embeddings for encoder in encoders),
        )

    @property
    def components(self) -> dict[str, nn.Module]:
        """The modules a LoRA may change, by the names that LoRA files use."""
        return {"unet": self.unet, **{tower.name: tower.encoder for tower in self.towers}}

    def map_layers(self, map_size: int | None = None) -> MapLayers:
        """Return the layers that give attention maps, measured once at the model's own size."""
        if map_size not in self._map_layers:
            side = self.unet.config["sample_size"]
            lengths = measure_cross_attention(self.unet, lambda: self._probe(side))
            layers = choose_map_layers(lengths, latent_side=side, map_size=map_size)
            self._map_layers[map_size] = layers
        return self._map_layers[map_size]

    def latent_shape(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return height and width of the latents of an image of this size."""
        return height_px // self.image_scale, width_px // self.image_scale

    def run_unet(
        self,
        latents: Float[Tensor, "lane channel height width"],
        t: Num[Tensor, ""],
        conditions: Conditions,
    ) -> Float[Tensor, "lane channel height width"]:
        """Return the predicted noise in ``precise_dtype``; every pass of the sampler is one call.

        Args:
            latents: Latents as the model sees them (scaled by the solver), in any precision.
            t: Timestep.
            conditions: What each lane shows.
        """
        [noise] = self.unet(
            latents.to(self.dtype),
            t,
            conditions.text,
            added_cond_kwargs=dict(conditions.added),
            return_dict=False,
        )
        return noise.to(self.precise_dtype)

    def _probe(self, side: int) -> None:
        def zeros(*shape: int) -> Float[Tensor, "..."]:
            return torch.zeros(shape, device=self.device, dtype=self.dtype)

        config = self.unet.config
        added: dict[str, Float[Tensor, "lane _"]] = {}
        if self.is_xl:
            num_ids = 6
            pooled = (
                config["projection_class_embeddings_input_dim"]
                - num_ids * config["addition_time_embed_dim"]
            )
            added = {"text_embeds": zeros(1, pooled), "time_ids": zeros(1, num_ids)}
        conditions = Conditions(zeros(1, 1, config["cross_attention_dim"]), added)
        latents = zeros(1, self.latent_channels, side, side)
        self.run_unet(latents, torch.zeros((), device=self.device), conditions)

    @contextmanager
    def in_dtype(self, dtype: torch.dtype) -> Generator[None]:
        """Hold the weights in ``dtype`` inside the block, for a row that half precision breaks."""
        before = self.dtype
        modules: list[nn.Module] = [*self.components.values(), self.vae]
        try:
            for module in modules:
                module.to(dtype=dtype)
            yield
        finally:
            for module in modules:
                module.to(dtype=before)


def load_base_model(
    path: str | Path, *, dtype: str = "float32", device: str | torch.device = "cpu"
) -> DiffusionModel:
    """Return the base model in the diffusers folder ``path``, frozen, in evaluation mode.

    Raises:
        ValueError: The folder is no Stable Diffusion 1.x, 2.x or XL pipeline.
    """
    if not (Path(path) / "model_index.json").is_file():
        raise ValueError(
            f"{path} is no base model: it has no model_index.json; name a folder in diffusers' "
            f"format, as save_pretrained() writes it"
        )
    pipeline: Any = DiffusionPipeline.from_pretrained(
        str(path),
        variant=pipeline_variant(Path(path)),
        dtype=getattr(torch, dtype),
        local_files_only=True,
        safety_checker=None,
        requires_safety_checker=False,
        feature_extractor=None,
    )
    return base_model_of(pipeline, device)


def base_model_of(pipeline: Any, device: str | torch.device = "cpu") -> DiffusionModel:
    """Return the parts of a loaded diffusers pipeline as a base model; the weights are shared."""
    parts: dict[str, Any] = pipeline.components
    if "unet" not in parts or "vae" not in parts or parts.get("text_encoder") is None:
        raise ValueError(
            f"{type(pipeline).__name__} is not a pipeline with a UNet, a VAE and a text encoder; "
            f"Stable Diffusion 1.x, 2.x and XL folders are"
        )
    towers = [
        TextTower(
            f"text_encoder{suffix}", parts[f"tokenizer{suffix}"], parts[f"text_encoder{suffix}"]
        )
        for suffix in ("", "_2")
        if parts.get(f"text_encoder{suffix}") is not None
    ]
    is_xl = parts["unet"].config.get("addition_embed_type") == "text_time"
    for module in (parts["unet"], parts["vae"], *(tower.encoder for tower in towers)):
        module.to(device).eval().requires_grad_(requires_grad=False)
    return DiffusionModel(
        unet=parts["unet"],
        vae=parts["vae"],
        towers=tuple(towers),
        scheduler_config=dict(parts["scheduler"].config),
        is_xl=is_xl,
        zeros_for_empty_negative=bool(
            is_xl and pipeline.config.get("force_zeros_for_empty_prompt", False)
        ),
    )
