"""CLIP text scores: how well an image shows what its prompt says, as far as CLIP can tell.

The cosine of CLIP's embeddings of image and prompt (arXiv 2104.08718 without its factor and floor).
CLIP reads "a cat and a dog" much as a bag of words, so it cannot tell whose instance it sees; it
stands beside DINO scores and never in their place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import nn
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel


class ClipScorer:
    """A CLIP model with its tokenizer and the preprocessing that its folder prescribes."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, processor: Any, device: str | torch.device
    ) -> None:
        self._model: Any = model.to(device).eval().requires_grad_(requires_grad=False)
        self._tokenizer = tokenizer
        self._processor = processor
        self._device = device

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "ClipScorer":
        """Return the scorer in ``path``, a ``CLIPModel`` folder in transformers' format.

        Raises:
            OSError: The folder holds no such model.
        """
        folder = str(path)
        return cls(
            CLIPModel.from_pretrained(folder, local_files_only=True),
            AutoTokenizer.from_pretrained(folder, local_files_only=True),
            CLIPImageProcessor.from_pretrained(folder, local_files_only=True),
            device,
        )

    @torch.no_grad()
    def scores(
        self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], prompts: Sequence[str]
    ) -> Float[np.ndarray, " image"]:
        """Return the cosine of each RGB image with its own prompt.

        Prompts longer than CLIP reads are cut off, as CLIP was trained.
        """
        pictures = [Image.fromarray(image) for image in images]
        pixels: Any = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        texts: Any = self._tokenizer(
            list(prompts), padding=True, truncation=True, return_tensors="pt"
        )
        output: Any = self._model(
            input_ids=texts["input_ids"].to(self._device),
            attention_mask=texts["attention_mask"].to(self._device),
            pixel_values=pixels.to(self._device),
        )
        image_side = nn.functional.normalize(output.image_embeds.float(), dim=1)  # [image, feature]
        text_side = nn.functional.normalize(output.text_embeds.float(), dim=1)  # [image, feature]
        return (image_side * text_side).sum(dim=1).cpu().numpy()
