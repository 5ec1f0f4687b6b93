"""Everything that can be told about a LoRA file without a model.

A run needs identity and faults alone (``loras.file``); a person who has got a file from somewhere
wants to know what it is for, how strong, under what words, and whether they have it already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.gallery_hashes import gallery_hashes
from manifests.loras.about.parts import changed_parts
from manifests.loras.about.sizes import ascending, memory_text, size_lines
from manifests.loras.about.trainer_notes import TrainerNotes, trainer_notes
from manifests.loras.file import LoraFileInfo, lora_content
from manifests.loras.fingerprint import lora_fingerprint
from manifests.loras.local_lora import by_catalog_names, local_lora, lora_file
from manifests.loras.scales import lora_scales
from manifests.places.hub_files import pinned
from manifests.places.hub_names import hub_file
from manifests.places.locations import LocationError


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraReport:
    """What a usable LoRA file is.

    Attributes:
        path: The file or peft's folder, as it was asked for; of one of the model hub the name with
            its commit.
        info: Format, family, identity.
        ranks: Every rank of layers that an alpha scales, ascending.
        scales: Every scale (alpha over rank) of these, ascending; NaN where a pattern in the
            metadata decides it.
        alphas: Every scale times its layer's rank, ascending; NaN as in ``scales``.
        sizes: How large updates without a rank are: a word and a text for each sort of size.
        memory: What it takes in a run.
        parts: How many layers of each part it changes.
        hashes: By which galleries know it, by what they are called.
        fingerprint: The same for the same LoRA in another format.
        notes: What its trainer wrote.
    """

    path: Path
    info: LoraFileInfo
    ranks: tuple[int, ...]
    scales: tuple[float, ...]
    alphas: tuple[float, ...]
    sizes: tuple[tuple[str, str], ...]
    memory: str
    parts: Mapping[str, int]
    hashes: Mapping[str, str]
    fingerprint: str
    notes: TrainerNotes


def lora_report(path: str | Path) -> LoraReport:
    """Return what the LoRA ``path`` is: a file, a folder that peft has written, or a hub name.

    Raises:
        LoraFileError: It cannot be used; the sentence names the file, the reason, the way out.
        StoreAwayError: The model hub does not answer.
    """
    of_hub = hub_file(path) if isinstance(path, str) else None
    named = Path(path)
    try:
        if of_hub is None:
            return _report(named, lora_file(named))
        named = Path(str(pinned(of_hub)))
        file = local_lora(str(named))
    except LocationError as error:
        raise LoraFileError(str(error).replace(str(named), str(path))) from error
    try:
        return _report(named, file)
    except LoraFileError as error:
        raise LoraFileError(by_catalog_names(str(error), file, str(path))) from error


def _report(named: Path, path: Path) -> LoraReport:
    content = lora_content(path)
    layers = content.layers
    try:
        scales = lora_scales(path, content.header, layers, content.settings)
        hashes = gallery_hashes(path, content.info)
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror or error}") from error
    scaled = [layer for layer in layers if layer.is_scaled]
    return LoraReport(
        path=named,
        info=content.info,
        ranks=tuple(sorted({layer.rank for layer in scaled})),
        scales=ascending(scales[layer.name] for layer in scaled),
        alphas=ascending(scales[layer.name] * layer.rank for layer in scaled),
        sizes=size_lines(layers),
        memory=memory_text(content.header, layers, content.info.embeddings),
        parts=changed_parts(layers),
        hashes=hashes,
        fingerprint=lora_fingerprint(content, scales),
        notes=trainer_notes(content.header.metadata, content.config),
    )
