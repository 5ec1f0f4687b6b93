"""``clora loras convert``: any adapter as a plain LoRA, for tools that read nothing else.

How near the written file is to what it stands for is measured and said, layer by layer; what has no
place in a plain LoRA is refused, or left out if the command says that it may be.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.misplaced import LEFT_OUT, left_out
from clora_core.recipe.lora.names import has_numbered_text_encoder
from clora_core.recipe.lora.own_shapes import has_diffusers_names, own_model
from clora_core.recipe.lora.placement import ModelLayers, Place
from jobs.commands.lora_files.converted_file import conversion, converted_file
from jobs.console.converted import converted_text
from jobs.console.copying import counted
from jobs.exit_code import ALL_MADE, command
from jobs.job.base_models import model_facts
from jobs.job.model_names import name_findings
from manifests.loras.file import LoraContent, lora_content
from manifests.loras.fit import LoraFit
from manifests.loras.local_lora import by_catalog_names, local_lora
from manifests.text.problems import InputError, problems_at
from manifests.text.wording import listed
from manifests.weights.base_model import BaseModelFacts
from manifests.weights.model_layers import UnknownLayersError, model_layers
from pipelines.storage.storage import Storage, open_storage

if TYPE_CHECKING:
    from torch import nn

    from clora_core.lora.plain_file import Naming
    from clora_core.lora.plain_layer import RankLimits
    from clora_core.lora.plain_lora import PlainLora

DEFAULT_MAX_RANK = 128
"""No tool refuses it, and of an adapter of few ranks at heart it keeps nearly everything."""

DEFAULT_MAX_ERROR = 0.01
"""A hundredth of what the adapter changes: below what the next seed changes by far."""


@command()
def convert(
    path: str,
    *,
    out: Path,
    rank: int | None = None,
    max_error: float | None = None,
    base_model: str | None = None,
    naming: str = "kohya",
    half: bool = False,
    leave_out: str | None = None,
    force: bool = False,
) -> int:
    """Write an adapter as a plain LoRA.

    Args:
        path: The file, peft's folder, or a hub name (``owner/name@revision:file``).
        out: The file to write.
        rank: Highest rank of a layer.
        max_error: A layer gets the lowest rank that has this error.
        base_model: As a job names one; None for what the file itself says of the layers.
        naming: ``kohya`` or ``peft``, whose spelling diffusers writes.
        half: Write float16 instead of float32.
        leave_out: What has no place in a plain LoRA and may be left out, with commas between.
        force: Replace a file that is there.

    Returns:
        The exit code: 0 it is written, 1 the hub or the disk is away, 2 refused.
    """
    storage = open_storage(str(out.absolute().parent))
    findings = _findings(storage, out, rank, max_error, base_model, leave_out, force=force)
    if findings:
        raise InputError(problems_at("command line", findings))
    file = local_lora(path)
    facts = None if base_model is None else model_facts(base_model)
    try:
        content = lora_content(file)
        gone = left_out(file, content.layers, content.info.embeddings, leave_out)
        limits = _limits(rank, max_error)
        names: Naming = "kohya" if naming == "kohya" else "peft"
        plain, is_xl = _plain(file, content, facts, limits, half=half, naming=names)
        account = conversion(path, content, plain, limits, gone, base_model, facts)
        written = converted_file(
            file, content, plain, account, naming=names, half=half, is_xl=is_xl
        )
    except LoraFileError as error:
        sentence = str(error).replace("its row's base model", "the base model")
        raise LoraFileError(by_catalog_names(sentence, file, path)) from error
    if force:
        storage.put(out.name, written)
    elif not storage.put_if_absent(out.name, written):
        raise InputError(problems_at("command line", [("--out", _taken(out))]))
    print(converted_text(out, len(written), account))
    return ALL_MADE


def _findings(
    storage: Storage,
    out: Path,
    rank: int | None,
    max_error: float | None,
    base_model: str | None,
    leave_out: str | None,
    *,
    force: bool,
) -> list[tuple[str, str]]:
    """Return (option, sentence) of what is wrong with the command line."""
    found: list[tuple[str, str]] = []
    if out.suffix != ".safetensors":
        found.append(("--out", f"{str(out)!r} should end in .safetensors, by which tools know it"))
    elif out.is_dir() or (not force and storage.exists(out.name)):
        found.append(("--out", _taken(out)))
    if rank is not None and rank < 1:
        found.append(("--rank", f"should be 1 or more, got {rank}"))
    if max_error is not None and not 0 <= max_error < 1:
        found.append(("--max-error", f"should be at least 0 and below 1, got {max_error:g}"))
    unknown = [name for name in (leave_out or "").split(",") if name and name not in LEFT_OUT]
    if unknown:
        what = listed(unknown, 5)
        found.append(("--leave-out", f"{what}: only {', '.join(LEFT_OUT)} can be left out"))
    return [*found, *(("--base-model", text) for _, text in name_findings("", base_model))]


def _taken(out: Path) -> str:
    return f"{out} is there already; name another file, or replace it with --force"


def _limits(rank: int | None, max_error: float | None) -> "RankLimits":
    from clora_core.lora.plain_layer import RankLimits

    if rank is None and max_error is None:
        return RankLimits(max_rank=DEFAULT_MAX_RANK, max_error=DEFAULT_MAX_ERROR)
    return RankLimits(max_rank=rank, max_error=max_error or 0.0, cuts_factors=rank is not None)


@dataclass(frozen=True)
class _Base:
    """The layers that an adapter is for."""

    layers: ModelLayers
    components: "dict[str, nn.Module]"
    """With their weights; empty where shapes are enough."""

    def at(self, place: Place) -> "nn.Module":
        from clora_core.lora.plain_lora import of_shape

        component, name = place
        if self.components:
            return self.components[component].get_submodule(name)
        return of_shape(self.layers.shapes[component][name])

    @property
    def is_xl(self) -> bool:
        return "text_encoder_2" in self.layers.shapes


def _plain(
    file: Path,
    content: LoraContent,
    facts: BaseModelFacts | None,
    limits: "RankLimits",
    *,
    half: bool,
    naming: "Naming",
) -> "tuple[PlainLora, bool]":
    """Return the LoRA, and whether kohya numbers its text encoders, as those of SDXL."""
    if facts is None:
        base = _Base(own_model(file, content.layers, content.info.family), {})
        if naming == "peft" and not has_diffusers_names(base.layers):
            raise LoraFileError(
                f"{file} names its layers otherwise than diffusers does; name the base model with "
                "--base-model, or write kohya's names"
            )
    else:
        LoraFit(model_width=facts.cross_attention_width).check(file, content.info)
        base = _base(facts, needs_weights=any(each.needs_base_weights for each in content.layers))
    import torch

    from clora_core.lora.load import read_lora
    from clora_core.lora.plain_lora import plain_lora

    with counted("layers") as said:
        plain = plain_lora(
            read_lora(file, base.layers, with_words=False),
            base.at,
            limits,
            torch.float16 if half else torch.float32,
            folds_scale=naming == "peft",
            said=said,
        )
    if facts is None:
        is_numbered = any(has_numbered_text_encoder(each.name) for each in content.layers)
        return plain, is_numbered or content.info.family == "SDXL"
    return plain, base.is_xl


def _base(facts: BaseModelFacts, *, needs_weights: bool) -> _Base:
    if not needs_weights:
        try:
            return _Base(model_layers(facts.folder), {})
        except UnknownLayersError:
            pass  # the model library reads what the headers do not say
    from clora_core.diffusion.model import load_base_model
    from clora_core.lora.load import lora_targets

    components = load_base_model(facts.folder).components
    return _Base(lora_targets(components), components)
