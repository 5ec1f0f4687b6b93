"""Where in the image a row lets a LoRA act: a box in shares of the image, or a drawn mask.

As written: ``[left, top, right, bottom]``, ``{box, mode}`` or ``{mask, mode}``. As resolved: a
``Region`` with the digest of the mask's bytes, so that a redrawn mask is another row and a moved
one is not. Whether the mask is a picture is seen when it is painted.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from clora_core.recipe.row import Region, RegionMode
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.file_cache import local_copy
from manifests.places.locations import read_bytes
from manifests.places.place_names import absolute
from manifests.text.text_rules import ShortText

MAX_MASK_BYTES = 64 * 1024**2

Box = tuple[float, float, float, float]


def _inside_the_image(box: Box) -> Box:
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            "should be [left, top, right, bottom] in shares of the image (not pixels), with "
            "0 <= left < right <= 1 and 0 <= top < bottom <= 1"
        )
    return box


_Share = Annotated[float, Field(strict=True)]


class RegionRequest(BaseModel):
    """A region as a row's author wrote it; exactly one of box and mask.

    Attributes:
        box: Left, top, right, bottom as shares of width and height.
        mask: Image file, light where the LoRA may act; relative paths start at the manifest.
        mode: ``restrict`` keeps the LoRA's attention mask inside; ``replace`` makes the region
            the mask. Method ``merge`` has no attention masks and takes both as ``replace``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    box: (
        Annotated[tuple[_Share, _Share, _Share, _Share], AfterValidator(_inside_the_image)] | None
    ) = None
    mask: ShortText | None = None
    mode: RegionMode = "restrict"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        """Take a bare list as the box, and drop the nulls that a table's struct has."""
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            return {"box": cast("Sequence[object]", value)}
        if isinstance(value, Mapping):
            fields = cast("Mapping[str, object]", value)
            return {name: item for name, item in fields.items() if item is not None}
        raise ValueError(
            "should be a box [left, top, right, bottom] or a mapping with box or mask, and mode"
        )

    @model_validator(mode="after")
    def _one_of_two(self) -> "RegionRequest":
        if (self.box is None) == (self.mask is None):
            raise ValueError("should have one of box and mask")
        return self

    def as_written(self) -> Region:
        """Return the region with its mask where the row says, not looked at yet."""
        return Region(box=self.box, mask_uri=self.mask, mode=self.mode)


def resolved_region(
    request: RegionRequest,
    *,
    folder: str,
    cache: Path | None = None,
    allowed: AllowedRoots = EVERYWHERE,
) -> Region:
    """Return the region with its mask found and named by its content.

    Args:
        request: What the row says.
        folder: Where relative mask files start, as a path or URI.
        cache: Folder for fetched files; the user's cache if None.
        allowed: Where the mask may be.

    Raises:
        LocationError: The mask cannot be read or may not be; the sentence names it.
    """
    if request.mask is None:
        return request.as_written()
    uri = absolute(request.mask, beside=folder)
    allowed.check(uri)
    path = local_copy(uri, max_bytes=MAX_MASK_BYTES, cache=cache)
    digest = sha256(read_bytes(str(path), max_bytes=MAX_MASK_BYTES)).hexdigest()
    return Region(mask_uri=uri, mask_sha256=digest, mode=request.mode)
