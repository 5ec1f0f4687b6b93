"""What is worth knowing of a row and no mistake: sentences that go with it into the output."""

from collections.abc import Callable, Sequence

from clora_core.recipe.row import Lora
from manifests.loras.files import LoraFileState
from manifests.text.wording import shown

MAX_NAMES = 4
"""Of LoRAs in one sentence; a picture's recipe takes 1,000 characters."""


def lora_remarks(loras: Sequence[Lora], state: Callable[[Lora], LoraFileState]) -> tuple[str, ...]:
    """Return a sentence for each LoRA that a row has under more than one name.

    That may be meant: two subjects of a prompt can share one LoRA. Else it acts twice, and nobody
    asked for that.

    Args:
        loras: Of the row.
        state: Returns what the file of one of them is.
    """
    same: dict[str, list[Lora]] = {}
    for lora in loras:
        if lora.problem is None:
            same.setdefault(state(lora).fingerprint or lora.digest, []).append(lora)
    return tuple(_same_lora(group, state) for group in same.values() if len(group) > 1)


def _same_lora(loras: Sequence[Lora], state: Callable[[Lora], LoraFileState]) -> str:
    names = " and ".join(shown(lora.name) for lora in loras[:MAX_NAMES])
    num_more = len(loras) - MAX_NAMES
    names += f" and {num_more} more" if num_more > 0 else ""
    formats = dict.fromkeys(info.format for lora in loras if (info := state(lora).info) is not None)
    written = f" (written as {' and as '.join(formats)})" if len(formats) > 1 else ""
    times = "twice" if len(loras) == 2 else f"{len(loras)} times"
    return (
        f"LoRAs {names} are one LoRA under {len(loras)} names{written}, which acts {times} here; "
        "name it once, unless each name stands for a subject of its own"
    )
