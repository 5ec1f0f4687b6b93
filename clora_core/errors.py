"""Everything that goes wrong without being a fault of the program, from one root.

A ``CompositionError`` is a row's own fault: it becomes an error row and its neighbours are made.
Anything else that is raised while a row is made (no memory, a lost device, a bug) is the machine's
and stops the unit.
"""

import re
from typing import ClassVar

__all__ = [
    "CloraError",
    "CompositionError",
    "LoraFileError",
    "NonFiniteImageError",
    "PromptError",
]


class CloraError(Exception):
    """What a user can set right or wait for; the message is a sentence that says how.

    Attributes:
        exit_code: Of a command that it ends: 2 if the same command will be refused again, 1 if it
            may do better later.
        kind: Stable name of the class, such as ``lease-held`` of ``LeaseHeldError``.
    """

    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "clora"

    def __init_subclass__(cls) -> None:
        """Name the kind."""
        words = re.findall("[A-Z][a-z0-9]*", cls.__name__.removesuffix("Error"))
        cls.kind = "-".join(words).lower()


class CompositionError(CloraError):
    """A row cannot be made, for a reason that is in the row.

    Attributes:
        stage: Where it was found: ``"prompt"``, ``"lora"``, ``"sample"`` or ``"decode"``.
    """

    stage = "sample"


class PromptError(CompositionError):
    """The prompt does not hold what its LoRAs need, or does not fit the text encoder."""

    stage = "prompt"


class LoraFileError(CompositionError):
    """A LoRA file cannot be used with this base model; the message names the file."""

    stage = "lora"


class NonFiniteImageError(CompositionError):
    """The latents or the image are not finite, or the image is one flat colour."""

    stage = "decode"
