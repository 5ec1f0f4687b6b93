"""All cases of the corpus, and what writes one.

``CASES`` has every trainer with every kind, spelling and family that there is, and the precisions
that files have; ``WITHOUT`` says of the others why there is no such file.
"""

from collections.abc import Iterator
from pathlib import Path

from adapters.ai_toolkit_files import AI_TOOLKIT
from adapters.case import FAMILIES, AdapterCase, Components, Expected, Family, Trainer
from adapters.comfy_files import COMFYUI
from adapters.diffusers_files import DIFFUSERS
from adapters.kohya_files import KOHYA
from adapters.lycoris_files import LYCORIS
from adapters.onetrainer_files import ONETRAINER
from adapters.peft_files import PEFT

TRAINERS = (KOHYA, LYCORIS, ONETRAINER, AI_TOOLKIT, DIFFUSERS, PEFT, COMFYUI)
BY_NAME = {trainer.name: trainer for trainer in TRAINERS}

_DTYPES = ("F64", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_HALVES = ("F16", "BF16")
_OTHER_DTYPES: dict[tuple[str, str], tuple[str, ...]] = {
    ("kohya sd-scripts", "lora"): _DTYPES,
    ("kohya sd-scripts", "locon"): _HALVES,
    ("LyCORIS", "loha"): _DTYPES,
    ("LyCORIS", "lokr"): _DTYPES,
    ("LyCORIS", "dora output"): _HALVES,
    ("LyCORIS", "full"): _HALVES,
    ("LyCORIS", "oft constraint"): _HALVES,
    ("LyCORIS", "ia3 input"): _HALVES,
    ("LyCORIS", "norm"): _HALVES,
    ("OneTrainer", "oft scaled"): _HALVES,
    ("ai-toolkit", "lora"): _HALVES,
    ("ai-toolkit", "lokr"): _HALVES,
    ("ai-toolkit", "lokr factored"): _HALVES,
    ("ComfyUI", "extracted lora"): ("F16",),
    ("ComfyUI", "trained lora"): ("BF16",),
    ("diffusers scripts", "lora"): _HALVES,
    ("peft", "lora"): _HALVES,
}
"""By trainer and kind, beside F32; an 8-bit file has been saved again by another tool."""


def _rank(kind: str) -> int:
    return 2 if "lokr" in kind else 4  # small layers are not cut by more


def _cases() -> Iterator[AdapterCase]:
    for trainer in TRAINERS:
        for kind, spelling, family in combinations(trainer):
            if trainer.why_not(kind, spelling, family) is not None:
                continue
            first = AdapterCase(
                trainer=trainer.name,
                kind=kind,
                spelling=spelling,
                family=family,
                rank=_rank(kind),
            )
            yield first
            if spelling == trainer.spellings[0] and family == "sd15":
                for dtype in _OTHER_DTYPES.get((trainer.name, kind), ()):
                    yield AdapterCase(**{**vars(first), "dtype": dtype})


def combinations(trainer: Trainer) -> Iterator[tuple[str, str, Family]]:
    """Yield kind, spelling and family, also where there is no such file."""
    for kind in trainer.kinds:
        for spelling in trainer.spellings:
            for family in FAMILIES:
                yield kind, spelling, family


CASES: tuple[AdapterCase, ...] = tuple(_cases())

WITHOUT: dict[tuple[str, str, str, Family], str] = {
    (trainer.name, *combination): reason
    for trainer in TRAINERS
    for combination in combinations(trainer)
    if (reason := trainer.why_not(*combination)) is not None
}
"""Why there is no file, by trainer, kind, spelling and family."""


def write_case(folder: Path, case: AdapterCase, components: Components) -> Expected:
    """Write the case's file into ``folder`` and return it with what it means.

    Args:
        folder: For the file; peft's goes into a folder of its own in it.
        case: Of ``CASES``, or another one.
        components: Of the base model: ``unet``, ``text_encoder`` and, of SDXL,
            ``text_encoder_2``. They are not changed.

    Raises:
        AssertionError: It has no effect on a layer.
    """
    expected = BY_NAME[case.trainer].write(folder, case, components)
    assert expected.effects, f"{case} changes no layer of this base model"
    for place, effect in expected.effects.items():
        changed = effect.weight is not None and bool(effect.weight.any())
        assert changed, f"{case} leaves {'.'.join(place)} as it is"
    return expected
