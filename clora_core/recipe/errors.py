"""Everything that goes wrong without being a fault of the program, from one root.

A ``CompositionError`` is a row's own fault: it becomes an error row and its neighbours are made.
Anything else that is raised while a row is made (no memory, a lost device, a bug) is the machine's
and stops the unit.
"""

import re
from enum import StrEnum
from typing import ClassVar


class Stage(StrEnum):
    """Where a row can fail; the text is what an output, its log and its metrics say."""

    LORA = "lora"
    PROMPT = "prompt"
    FUSE = "fuse"
    """While its LoRAs were made into one adapter."""
    SAMPLE = "sample"
    DECODE = "decode"
    GENERATE = "generate"
    """In the engine, for a reason that is not known to be the row's."""
    PROCESS = "process"
    """With the process that made it."""


class CloraError(Exception):
    """What a user can set right or wait for; the message is a sentence that says how.

    Attributes:
        exit_code: Of a command that it ends: 2 if the same command will be refused again, 1 if it
            may do better later.
        kind: Stable name of the class, such as ``lease-held`` of ``LeaseHeldError``.
        run_id: Of the run that it ended; None if none had begun.
    """

    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "clora"
    run_id: str | None = None

    def __init_subclass__(cls, **given: object) -> None:
        """Name the kind."""
        super().__init_subclass__(**given)
        words = re.findall("[A-Z][a-z0-9]*", cls.__name__.removesuffix("Error"))
        cls.kind = "-".join(words).lower()


class CompositionError(CloraError):
    """A row cannot be made, for a reason that is in the row.

    Attributes:
        stage: Where it was found.
    """

    stage = Stage.SAMPLE


class PromptError(CompositionError):
    """The prompt does not hold what its LoRAs need, or does not fit the text encoder."""

    stage = Stage.PROMPT


class LoraFileError(CompositionError):
    """A file of weights cannot be used, at all or with this base model; the message names it."""

    stage = Stage.LORA


class FusionError(CompositionError):
    """LoRAs cannot be made into one adapter; the message says why."""

    stage = Stage.FUSE


class NonFiniteImageError(CompositionError):
    """The latents or the image are not finite, or the image is one flat colour."""

    stage = Stage.DECODE
