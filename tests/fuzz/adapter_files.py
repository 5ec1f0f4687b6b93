"""Adapter files of every kind, whole and damaged: what is said beforehand is what the run says.

A file that passes the check and fails in the run would cost a GPU, and one that the check refuses
and the run takes would cost a person their LoRA.
"""

import functools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from adapters.case import Components
from adapters.layers import read_components
from adapters.many import write_many
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.adapter_config import CONFIG_FILE
from emoji_world import base_model_dir
from fuzz.mutations import mutated
from manifests.loras.about.report import lora_report
from manifests.loras.catalog import LoraEntry
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.weights.model_layers import model_layers

Tensors = dict[str, Tensor]
DAMAGED_PER_FILE = 3


@dataclass(frozen=True)
class Verdicts:
    """What is said of a file, None where it is taken: by inspect, by validate, by the run."""

    inspect: str | None
    check: str | None
    run: str | None

    def assert_agree(self) -> None:
        """Raise an AssertionError if the check isn't the run's, or inspect refuses more."""
        assert (self.check is None) == (self.run is None), self
        assert self.inspect is None or self.check is not None, self


def verdicts(path: Path, fit: LoraFit, components: Components) -> Verdicts:
    """Return what is said of the file; anything else than a refusal is raised.

    Args:
        path: The file.
        fit: What the check knows of the base model.
        components: Of that base model.
    """
    entry = LoraEntry(name="x", uri=str(path), subject="cat")
    return Verdicts(
        inspect=_refusal(lambda: lora_report(path)),
        check=LoraFiles().state(entry, fit).problem,
        run=_refusal(lambda: _run(path, components)),
    )


def _run(path: Path, components: Components) -> None:
    """Do what a run does with a file: read it and put it on its layers."""
    lora = read_lora(path, lora_targets(components))
    for component, updates in lora.components.items():
        for name, update in updates.items():
            module = components[component].get_submodule(name)
            x = torch.ones(2, *_input_shape(module), dtype=module.weight.dtype)
            output = module(x)
            applied = update.applied(module, x.dtype)
            if applied.low_rank is not None:
                assert applied.low_rank.matrix().shape == module.weight.flatten(1).shape
            for term in applied.terms:
                assert term.delta(x, output).shape == output.shape
                matrix = term.matrix()
                assert matrix is None or matrix.shape == module.weight.flatten(1).shape


def _input_shape(module: nn.Module) -> tuple[int, ...]:
    if isinstance(module, nn.Conv2d):
        return module.in_channels, 4, 4
    return (
        (module.num_channels, 2, 2)
        if isinstance(module, nn.GroupNorm)
        else (module.weight.shape[-1],)
    )


def _refusal(look: Callable[[], object]) -> str | None:
    try:
        look()
    except LoraFileError as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------- damages


def dropped(found: Tensors, source: random.Random) -> Tensors:
    """Leave a tensor out."""
    gone = source.choice(sorted(found))
    return {name: tensor for name, tensor in found.items() if name != gone}


def resized(found: Tensors, source: random.Random) -> Tensors:
    """Give a tensor one more or fewer of something, or none."""
    name = source.choice(sorted(found))
    shape = list(found[name].shape) or [1]
    shape[source.randrange(len(shape))] += source.choice((-2, -1, 1, 2))
    return found | {name: _filled(found[name], [max(side, 0) for side in shape])}


def reordered(found: Tensors, source: random.Random) -> Tensors:
    """Turn a tensor's sides around: as many numbers, another shape."""
    name = source.choice(sorted(found))
    shape = list(found[name].shape)
    source.shuffle(shape)
    return found | {name: found[name].reshape(shape)}


def flattened(found: Tensors, source: random.Random) -> Tensors:
    """Give a tensor sides of 1, or take its last ones together."""
    name = source.choice(sorted(found))
    tensor = found[name]
    shapes: list[tuple[int, ...]] = [(*tensor.shape, 1), (*tensor.shape, 1, 1), (1, *tensor.shape)]
    if tensor.ndim > 1:
        shapes += [(*tensor.shape[:-2], -1), (tensor.shape[0], -1), (-1,)]
    return found | {name: tensor.reshape(source.choice(shapes))}


def moved(found: Tensors, source: random.Random) -> Tensors:
    """Give a tensor the part's name of another one."""
    one, other = source.choice(sorted(found)), source.choice(sorted(found))
    layer, _ = _split(one)
    _, part = _split(other)
    return {(f"{layer}{part}" if name == one else name): t for name, t in found.items()}


PARTS = (
    ".alpha", ".dora_scale", ".diff", ".diff_b", ".w_norm", ".b_norm", ".oft_blocks", ".rescale",
    ".oft_R.weight", ".oft_R.scaled_oft", ".boft_R", ".boft_s", ".lora_up.weight",
    ".lora_mid.weight", ".lora_down.weight", ".lora_A.weight", ".lora_B.weight", ".lora_B.bias",
    ".magnitude", ".lora_magnitude_vector", ".hada_w1_a", ".hada_w1_b", ".hada_t1", ".hada_t2",
    ".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b", ".lokr_t2",
    ".scalar", ".on_input", ".lora.up.bias",
    ".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight",
)  # fmt: skip


def added(found: Tensors, source: random.Random) -> Tensors:
    """Add a part of any kind to a layer."""
    like = found[source.choice(sorted(found))]
    layer, _ = _split(source.choice(sorted(found)))
    shapes = [list(like.shape), list(like.shape[:1]), [], [1], list(like.shape[::-1])]
    return found | {f"{layer}{source.choice(PARTS)}": _filled(like, source.choice(shapes))}


def renamed(found: Tensors, source: random.Random) -> Tensors:
    """Let a layer, or all of them, begin as another tool has it."""
    prefixes = (
        "lora_unet_", "lycoris_", "oft_unet_", "unet.", "base_model.model.", "diffusion_model.",
        "model.diffusion_model.", "text_encoder.", "lora_te_", "lora_te1_", "transformer.", "",
    )  # fmt: skip
    first = source.choice(sorted(found))
    old = next((each for each in prefixes if first.startswith(each)), "")
    new = source.choice(prefixes)
    one = _split(first)[0] if source.random() < 0.5 else old
    return {
        (new + name.removeprefix(old) if name.startswith(one) else name): tensor
        for name, tensor in found.items()
    }


def recast(found: Tensors, source: random.Random) -> Tensors:
    """Save a tensor as numbers of another dtype."""
    name = source.choice(sorted(found))
    dtypes = (
        torch.int64, torch.int8, torch.uint8, torch.bool, torch.float64, torch.complex64,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz,
        torch.uint16,
    )  # fmt: skip
    return found | {name: found[name].float().to(source.choice(dtypes))}


def spoilt(found: Tensors, source: random.Random) -> Tensors:
    """Make a tensor's numbers infinite, none at all, or 0."""
    name = source.choice(sorted(found))
    value = source.choice((float("inf"), float("nan"), 0.0, -1.0))
    try:
        return found | {name: torch.full_like(found[name], value)}
    except RuntimeError:  # numbers that know no infinity
        return found | {name: torch.zeros_like(found[name])}


DAMAGES = (
    dropped, resized, reordered, flattened, moved, added, renamed, recast, spoilt
)  # fmt: skip


def _filled(like: Tensor, shape: list[int]) -> Tensor:
    return torch.full(shape, 0.01, dtype=torch.float32).to(like.dtype)


def _split(name: str) -> tuple[str, str]:
    """Return a tensor's layer and part; the layer's name may have dots, too."""
    for part in sorted(PARTS, key=len, reverse=True):
        if name.endswith(part):
            return name.removesuffix(part), part
    layer, _, part = name.rpartition(".")
    return layer, f".{part}"


# ---------------------------------------------------------------------------------------- runs


def fuzz_adapters(first: int, num_cases: int, *, seed: int, folder: Path) -> Counter[str]:
    """Return how many files ended in which way, as their trainers write them and damaged.

    Args:
        first: Number of the first file.
        num_cases: How many files.
        seed: Of their choice.
        folder: For the files.

    Raises:
        AssertionError: Naming the case, if check and run differ or one of them breaks off.
    """
    counts: Counter[str] = Counter()
    written = write_many(folder, _components(), count=num_cases, seed=seed, first=first)
    for number, (case, expected) in enumerate(written, first):
        whole = _read(expected.path)
        for attempt in range(1 + DAMAGED_PER_FILE):
            where = f"file {number}/{attempt} of seed {seed} ({case})"
            try:
                done = _damage(expected.path, whole, where) if attempt else "whole"
                said = verdicts(expected.path, _fit(), _components())
                said.assert_agree()
            except Exception as error:
                raise AssertionError(f"{where}, {_described(expected.path)}") from error
            counts[f"{done} {'accepted' if said.run is None else 'refused'}"] += 1
        expected.path.unlink()
    return counts


@dataclass(frozen=True)
class _Whole:
    """A file as its trainer writes it; peft's with the settings beside it."""

    tensors: Tensors
    metadata: dict[str, str]
    config: str | None


def _read(path: Path) -> _Whole:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    config = path.with_name(CONFIG_FILE)
    return _Whole(load_file(path), metadata, config.read_text() if config.exists() else None)


def _damage(path: Path, whole: _Whole, where: str) -> str:
    """Write the file with one or two things wrong; return what is damaged."""
    source = random.Random(where)
    found, metadata, config = whole.tensors, whole.metadata, whole.config
    settings = metadata.get("lora_adapter_metadata") if config is None else config
    if settings is not None and source.random() < 0.3:
        changed = json.dumps(mutated(json.loads(settings), source))
        if config is None:
            metadata = metadata | {"lora_adapter_metadata": changed}
        else:
            config = changed
        what = "settings"
    else:
        what = "damaged"
        for damage in source.choices(DAMAGES, k=source.choice((1, 1, 2))):
            found = damage(found, source) if found else found
    save_file({n: t.contiguous().clone() for n, t in found.items()}, path, metadata=metadata)
    if config is not None:
        path.with_name(CONFIG_FILE).write_text(config)
    return what


def _described(path: Path) -> str:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return str({n: (s.get_dtype(), s.get_shape()) for n, s in slices.items()})
    except (OSError, SafetensorError) as error:
        return str(error)


@functools.cache
def _components() -> Components:
    return read_components(base_model_dir())


@functools.cache
def _fit() -> LoraFit:
    width = _components()["unet"].config.cross_attention_dim
    return LoraFit(model_width=width, layers=model_layers(base_model_dir()))
