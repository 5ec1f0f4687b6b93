"""Whether a row's texts name the embeddings that its LoRAs bring along, found before it is made."""

from collections.abc import Sequence

from clora_core.recipe.methods import METHODS
from clora_core.recipe.prompts.chunks import negative_of
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.reading.embedded import pieces_of, same_name
from clora_core.recipe.row import Lora, Row

_MAX_SHOWN = 100


def word_findings(row: Row) -> list[tuple[str, str]]:
    """Return (column, sentence) of every reason that the embeddings of ``row`` cannot act.

    Args:
        row: A row that the sampler could make as far as its method and prompts go.
    """
    if not row.words:
        return []
    if METHODS[row.method].fused_by is not None:
        holders = [lora for lora in row.concepts if lora.words]
        return [("method", _not_fused(row.method, lora)) for lora in holders]
    twins = _twins(row.loras)
    if twins:
        return [("loras", text) for text in twins]
    concepts = row.concepts
    prompt = mark_prompt(row.prompt, concepts, range(len(concepts)), row.sampler.prompt_syntax)
    texts = (prompt.read, negative_of(row).read)
    named = {piece.word for text in texts for piece in pieces_of(text, row.words)}
    numbered = enumerate((lora, word.name) for lora in row.loras for word in lora.words)
    return [
        ("loras", _not_named(lora, name)) for index, (lora, name) in numbered if index not in named
    ]


def _twins(loras: Sequence[Lora]) -> list[str]:
    seen: list[tuple[str, Lora]] = []
    found: list[str] = []
    for lora in loras:
        for word in lora.words:
            other = next((other for name, other in seen if same_name(name, word.name)), None)
            seen.append((word.name, lora))
            if other is not None:
                whose = (
                    f"LoRAs {other.name!r} and {lora.name!r} both hold"
                    if other is not lora
                    else f"LoRA {lora.name!r} twice holds"
                )
                found.append(
                    f"{whose} the embedding {word.name[:_MAX_SHOWN]!r}, and a text cannot say "
                    "which is meant; name one of them, or rename the file of one"
                )
    return found


def _not_named(lora: Lora, name: str) -> str:
    where = "the trigger, the prompt or the negative prompt"
    if lora.kind == "style":
        where = "the prompt or the negative prompt (a style's trigger is in neither)"
    return (
        f"LoRA {lora.name!r} holds the embedding {name[:_MAX_SHOWN]!r}, which acts where its name "
        f"is written, and it is written nowhere; write it in {where}, or leave the LoRA out"
    )


def _not_fused(method: str, lora: Lora) -> str:
    return (
        f"{method!r} fuses no embeddings, and LoRA {lora.name!r} holds "
        f"{', '.join(repr(word.name[:_MAX_SHOWN]) for word in lora.words)}; use 'merge' or another "
        "method that fuses nothing"
    )
