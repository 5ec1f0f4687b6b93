"""Where in the image a LoRA may act: a box or a drawn mask that its attention mask must respect.

Beyond the paper: users of every composition tool ask to say where each concept goes. A region
either restricts the attention mask (the concept may be smaller than the region, never outside it)
or replaces it (the concept's variant paints the whole region, whatever the maps say).
"""

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clora_core.recipe.errors import PromptError
from clora_core.recipe.row import Region

_NO_IMAGE = (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError)
"""What Pillow raises for a picture that is none, or that would unpack to gigabytes."""


def region_mask(region: Region, height: int, width: int) -> Bool[Tensor, "height width"]:
    """Return ``region`` on a map of ``height`` x ``width`` positions, by each position's centre.

    Raises:
        PromptError: The box is empty or leaves the image, the mask cannot be read, or no position's
            centre is inside.
    """
    if region.box is None:
        mask = _drawn(str(region.mask_uri), height, width)
    else:
        left, top, right, bottom = region.box
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise PromptError(
                f"region box {list(region.box)}: left < right and top < bottom must hold, all "
                f"between 0 and 1 (shares of the image)"
            )
        x = (torch.arange(width) + 0.5) / width
        y = (torch.arange(height) + 0.5) / height
        mask = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None, :]
    if not bool(mask.any()):
        raise PromptError(
            f"the region {region.box or region.mask_uri!r} covers none of the {height}x{width} "
            f"attention positions; make it larger"
        )
    return mask


def _drawn(path: str, height: int, width: int) -> Bool[Tensor, "height width"]:
    try:
        with Image.open(path) as image:
            small = image.convert("L").resize((width, height), Image.Resampling.BOX)
    except _NO_IMAGE as error:
        raise PromptError(f"region mask {path} cannot be read as an image ({error})") from error
    return torch.from_numpy(np.asarray(small) >= 128)
