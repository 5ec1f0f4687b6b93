"""DINO features of images, and how like its references an image is for each LoRA.

ArXiv 2403.19776, section 4.2: a composed image is compared with images that each LoRA makes alone;
a score is the mean cosine of their DINO class embeddings, reported as minimum, average and maximum
over the LoRAs. A mean of cosines against unit vectors is one product with their mean, so a LoRA's
references are kept as one centroid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel


class DinoScorer:
    """A DINO-style vision transformer with the preprocessing that its folder prescribes."""

    def __init__(self, model: nn.Module, processor: Any, device: str | torch.device) -> None:
        self._model = model.to(device).eval().requires_grad_(requires_grad=False)
        self._processor = processor
        self._device = device

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "DinoScorer":
        """Return the scorer in ``path``, a folder in transformers' format."""
        processor: Any = AutoImageProcessor.from_pretrained(str(path), local_files_only=True)
        config: Any = AutoConfig.from_pretrained(str(path), local_files_only=True)
        # DINO's first vision transformers have no pooler; asked for one, transformers makes one up.
        unpooled = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        model: Any = AutoModel.from_pretrained(
            str(path), local_files_only=True, dtype=torch.float32, **unpooled
        )
        return cls(model, processor, device)

    @torch.no_grad()
    def features(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    ) -> Float[np.ndarray, "image feature"]:
        """Return unit-length class embeddings of RGB ``images``."""
        pictures = [Image.fromarray(image) for image in images]
        pixels: Any = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        output: Any = self._model(pixel_values=pixels.to(self._device))
        embedding = output.last_hidden_state[:, 0].float()  # [image, feature]
        return nn.functional.normalize(embedding, dim=1).cpu().numpy()


def reference_centroid(
    features: Float[np.ndarray, "reference feature"],
) -> Float[np.ndarray, " feature"]:
    """Return the mean of a LoRA's reference features; not of unit length, on purpose."""
    return features.mean(axis=0)


def lora_scores(
    features: Float[np.ndarray, "image feature"], centroids: Float[np.ndarray, "lora feature"]
) -> Float[np.ndarray, "image lora"]:
    """Return each image's mean cosine to each LoRA's references."""
    return features @ centroids.T
