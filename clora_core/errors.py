"""What a row can be refused for: the row's own fault, never the machine's.

A ``CompositionError`` becomes an error row and its neighbours are made. Anything else that is
raised (no memory, a lost device, a bug) is the machine's and stops the unit.
"""

from enum import StrEnum


class Stage(StrEnum):
    """Where a row can fail; the text is what an output, its log and its metrics say."""

    LORA = "lora"
    PROMPT = "prompt"
    SAMPLE = "sample"
    DECODE = "decode"
    GENERATE = "generate"
    """In the engine, for a reason that is not known to be the row's."""
    PROCESS = "process"
    """With the process that made it."""


class CompositionError(Exception):
    """A row cannot be made, for a reason that is in the row.

    Attributes:
        stage: Where it was found.
    """

    stage = Stage.SAMPLE


class PromptError(CompositionError):
    """The prompt does not hold what its LoRAs need, or does not fit the text encoder."""

    stage = Stage.PROMPT


class LoraFileError(CompositionError):
    """A LoRA file cannot be used with this base model; the message names the file."""

    stage = Stage.LORA


class NonFiniteImageError(CompositionError):
    """The latents or the image are not finite, or the image is one flat colour."""

    stage = Stage.DECODE
