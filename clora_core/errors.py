"""What a row can be refused for: the row's own fault, never the machine's.

A ``CompositionError`` becomes an error row and its neighbours are made. Anything else that is
raised (no memory, a lost device, a bug) is the machine's and stops the unit.
"""


class CompositionError(Exception):
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
