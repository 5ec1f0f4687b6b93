"""Recipe ``ziplora``: two LoRAs whose columns are weighed against each other (arXiv 2311.13600).

For every attention projection the merged delta is Delta_1 diag(m_1) + Delta_2 diag(m_2), with one
number for each input column, 1 at the start. The numbers are fitted so that the merged model
predicts, for each LoRA's own images and prompt, what that LoRA alone predicts, while the columns
that both use shrink. Layers outside attention are added up; the paper's LoRAs have none.

The learning rate is the paper's, 0.01. With the 5e-5 of a known port the numbers move by less than
0.005 in the paper's 100 steps, and the result is the plain sum.
"""

import math
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.noise import TrainingNoise
from clora_core.fuse.concept_text import conditions_of
from clora_core.fuse.ingredient import (
    DrawImages,
    FusedAdapter,
    Ingredient,
    Layer,
    by_component,
    layers_of,
    summed,
)
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import FusionError

HALF_PRECISION_SCALE = 1024.0
"""Of the loss before the backward pass in float16, whose smallest gradients would be lost."""

_PROJECTIONS = (".to_q", ".to_k", ".to_v", ".to_out.0")


@dataclass(frozen=True)
class Merger:
    """One projection's two LoRAs and the numbers that weigh their columns.

    Attributes:
        downs: Their factors from the input, in the model's precision.
        ups: Their factors to the output, scale and weight in them.
        columns: What is fitted: how much of each input column each LoRA takes.
    """

    downs: tuple[Float[Tensor, "_ in"], Float[Tensor, "_ in"]]
    ups: tuple[Float[Tensor, "out _"], Float[Tensor, "out _"]]
    columns: Float[Tensor, "2 in"]

    def delta(self, x: Float[Tensor, "*sample in"]) -> Float[Tensor, "*sample out"]:
        """Return what the merged LoRA adds to the projection's output."""
        columns = self.columns.to(x.dtype)
        first = (x * columns[0]) @ self.downs[0].mT @ self.ups[0].mT
        return first + (x * columns[1]) @ self.downs[1].mT @ self.ups[1].mT

    @property
    def overlap(self) -> Float[Tensor, ""]:
        """How much both take of the same columns."""
        return (self.columns[0] * self.columns[1]).abs().mean()

    def factor(self) -> Factor:
        """Return the merged delta, of both ranks together."""
        columns = self.columns.detach()
        downs = [down.double() * part for down, part in zip(self.downs, columns, strict=True)]
        ups = [up.double() for up in self.ups]
        return Factor(torch.cat(downs).contiguous(), torch.cat(ups, dim=1).contiguous(), 1.0)


@torch.inference_mode(mode=False)
def fuse(
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    config: SamplerConfig,
    draw: DrawImages,
) -> FusedAdapter:
    """Return the two ingredients merged; attention projections have exactly both ranks.

    Args:
        model: Base model.
        ingredients: Two concepts.
        config: The settings of ``methods.fused.ZIPLORA`` count.
        draw: Makes the images that a concept's LoRA makes alone.

    Raises:
        FusionError: The fit diverged.
    """
    layers = layers_of(ingredients)
    projections = [
        layer for layer in layers if layer[0] == "unet" and layer[1].endswith(_PROJECTIONS)
    ]
    if not projections:
        raise FusionError(
            "method 'ziplora' weighs attention projections of the UNet, and the row's LoRAs change "
            "none; use 'merge' or 'mix-of-show'"
        )
    others = by_component(
        {
            layer: summed(ingredients, layer)
            for layer in layers
            if layer not in projections and (layer[0] == "unet" or config.text_encoder_lora)
        }
    )
    mergers = {name: _merger(model, ingredients, ("unet", name)) for _, name in projections}
    latents = [_latents(model, draw(index)) for index in range(len(ingredients))]
    losses = _fit(model, ingredients, others, mergers, latents, config)
    merged = {("unet", name): merger.factor() for name, merger in mergers.items()}
    return FusedAdapter(
        factors=by_component(others.as_factors() | merged),
        final_loss=losses[-1],
        losses=tuple(losses),
        unet_evaluations=config.ziplora_steps * 2 * len(ingredients),
    )


def _fit(
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    others: LoraFactors,
    mergers: dict[str, Merger],
    latents: Sequence[Float[Tensor, "image channel height width"]],
    config: SamplerConfig,
) -> list[float]:
    """Fit the mergers in place; return the loss of every step."""
    alone = [each.factors for each in ingredients]
    alone_weights = torch.diag(torch.tensor([each.lora.weight for each in ingredients]))
    alone_weights = alone_weights.to(model.device)
    prompts = [f"a {each.words}" for each in ingredients]
    text = alone if config.text_encoder_lora else [LoraFactors({}) for _ in alone]
    own_text = conditions_of(model, text, prompts, alone_weights, clip_skip=config.clip_skip)
    both = torch.ones(len(ingredients), 1, device=model.device)
    merged_text = conditions_of(model, [others], prompts, both, clip_skip=config.clip_skip)
    teacher, rest = LoraBank(model.unet, alone, "unet"), LoraBank(model.unet, [others], "unet")
    training = TrainingNoise(model)
    optimizer = torch.optim.Adam(
        [merger.columns for merger in mergers.values()], lr=config.ziplora_learning_rate
    )
    generator = torch.Generator("cpu").manual_seed(0)
    scale = HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
    losses: list[float] = []
    num_left_out = 0
    for step in range(config.ziplora_steps):
        chosen = torch.cat([each[step % len(each)][None] for each in latents])
        noise = torch.randn(chosen.shape, generator=generator).to(chosen)
        t = torch.randint(training.num_timesteps, (), generator=generator)
        t = t.to(model.device)
        noisy = training.add(chosen, noise, t)
        with torch.no_grad(), teacher.attached():
            teacher.use(alone_weights)
            target = model.run_unet(noisy, t, own_text)
        optimizer.zero_grad()
        loss = 0.0
        # One concept after the other, so that one graph is held at a time.
        for index in range(len(ingredients)):
            lane = slice(index, index + 1)
            with rest.attached(), attached(model.unet, mergers):
                rest.use(both[lane])
                predicted = model.run_unet(noisy[lane], t, merged_text[lane])
            part = ziplora_loss(
                predicted, target[lane], mergers, config.ziplora_overlap / len(ingredients)
            )
            (part * scale).backward()
            loss += float(part.detach())
        losses.append(loss)
        if not math.isfinite(loss):
            raise FusionError(
                f"method 'ziplora' diverged at step {step} of {config.ziplora_steps} (its loss is "
                f"not finite); lower ziplora_learning_rate ({config.ziplora_learning_rate})"
            )
        gradients = [merger.columns.grad for merger in mergers.values()]
        for gradient in gradients:
            if gradient is not None:
                gradient /= scale
        # In half precision a gradient may overflow; such a step is left out.
        if all(bool(each.isfinite().all()) for each in gradients if each is not None):
            optimizer.step()
        else:
            num_left_out += 1
    if num_left_out == config.ziplora_steps:
        raise FusionError(
            "method 'ziplora' found no finite gradient in any step; fuse in float32 or bfloat16 "
            "(resources.dtype)"
        )
    return losses


def ziplora_loss(
    predicted: Float[Tensor, "concept channel height width"],
    target: Float[Tensor, "concept channel height width"],
    mergers: dict[str, Merger],
    overlap: float,
) -> Float[Tensor, ""]:
    """Return the paper's equation 3: each concept's mean squared error, and the overlaps' sum.

    Of some of the concepts, with as large a share of ``overlap``, it is their share of the whole.
    """
    errors = (predicted - target).square().mean(dim=(1, 2, 3)).sum()
    shared = torch.stack([merger.overlap for merger in mergers.values()]).sum()
    return errors + overlap * shared


@contextmanager
def attached(unet: nn.Module, mergers: dict[str, Merger]) -> Generator[None]:
    """Apply the merged LoRA inside the block, with a graph to the mergers' numbers."""

    def hook(merger: Merger) -> Any:
        def add_delta(
            _module: nn.Module, args: tuple[Any, ...], output: Float[Tensor, "lane ..."]
        ) -> Float[Tensor, "lane ..."]:
            return output + merger.delta(args[0])

        return add_delta

    with ExitStack() as stack:
        for name, merger in mergers.items():
            handle = unet.get_submodule(name).register_forward_hook(hook(merger))
            stack.callback(handle.remove)
        yield


def _merger(model: DiffusionModel, ingredients: Sequence[Ingredient], layer: Layer) -> Merger:
    module: Any = model.unet.get_submodule(layer[1])
    weight: Float[Tensor, "out in"] = module.weight
    found = [each.matrices(layer) for each in ingredients]
    downs = [torch.zeros(0, weight.shape[1]) if pair is None else pair[0] for pair in found]
    ups = [torch.zeros(weight.shape[0], 0) if pair is None else pair[1] for pair in found]
    columns = torch.ones(2, weight.shape[1], device=model.device, dtype=model.precise_dtype)
    return Merger(
        (downs[0].to(weight), downs[1].to(weight)),
        (ups[0].to(weight), ups[1].to(weight)),
        columns.requires_grad_(),
    )


@torch.no_grad()
def _latents(
    model: DiffusionModel, images: Sequence[UInt8[np.ndarray, "height width 3"]]
) -> Float[Tensor, "image channel latent_height latent_width"]:
    """Return the latents of images, as the UNet is trained on them."""
    # XL's autoencoder overflows in half precision and says so in its config.
    precise = bool(model.vae.config.get("force_upcast")) and model.dtype == torch.float16
    found: list[Float[Tensor, "1 channel latent_height latent_width"]] = []
    with model.in_dtype(torch.float32) if precise else nullcontext():
        for image in images:
            pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            encoded: Any = model.vae.encode(pixels.to(model.device, model.vae.dtype))
            found.append(encoded.latent_dist.mode())
    latents = torch.cat(found)
    return (latents * model.vae.config["scaling_factor"]).to(model.precise_dtype)
