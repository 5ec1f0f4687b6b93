"""Whether a row's texts name the embeddings that its LoRAs bring along, found before it is made."""

from collections.abc import Sequence

from clora_core.recipe.config import PromptSyntax
from clora_core.recipe.methods import METHODS
from clora_core.recipe.prompts.chunks import negative_of
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.reading.embedded import pieces_of, same_name
from clora_core.recipe.reading.syntax import written
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
    in_prompt, in_negative = (
        {piece.word for piece in pieces_of(read, row.words)}
        for read in (prompt.read, negative_of(row).read)
    )
    is_guided = row.sampler.guidance_scale != 1
    named = in_prompt | in_negative if is_guided else in_prompt
    numbered = enumerate((lora, word.name) for lora in row.loras for word in lora.words)
    return [
        (
            "loras",
            _not_sampled(lora, name)
            if index in in_negative
            else _not_named(lora, name, row.sampler.prompt_syntax, is_guided=is_guided),
        )
        for index, (lora, name) in numbered
        if index not in named
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


def _not_named(lora: Lora, name: str, syntax: PromptSyntax, *, is_guided: bool) -> str:
    holds = f"LoRA {lora.name!r} holds the embedding {name[:_MAX_SHOWN]!r}, which acts where its"
    text = written(name, syntax)
    if text is None:
        return f"{holds} name is written, and {unwritable(name, syntax)}, or leave the LoRA out"
    texts = ["the prompt"] if lora.kind == "style" else ["the trigger", "the prompt"]
    texts += ["the negative prompt"] if is_guided else []
    where = " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
    if lora.kind == "style":
        where += f" (a style's trigger is in {'neither' if is_guided else 'no text'})"
    called = f"it as {text[: 2 * _MAX_SHOWN]!r}" if text != name else "it"
    return f"{holds} name is written, and it is written nowhere; write {called} in {where}, or " + (
        "leave the LoRA out"
    )


def unwritable(name: str, syntax: PromptSyntax) -> str:
    """Return why no text under ``syntax`` names the embedding ``name``, and what to do."""
    rename = (
        "give it a name without such signs (an embedding without a name of its own is called what "
        "its file is)"
    )
    if syntax == "plain" and written(name, "weighted") is not None:
        return (
            "a text under `prompt_syntax: plain` cannot hold this name, whose signs other tools "
            f"read as emphasis or chunks; set `prompt_syntax: weighted` under sampler, or {rename}"
        )
    return f"no text can hold this name, whose signs say something else; {rename}"


def _not_sampled(lora: Lora, name: str) -> str:
    return (
        f"LoRA {lora.name!r} holds the embedding {name[:_MAX_SHOWN]!r}, which only the negative "
        "prompt names, and with a guidance_scale of 1 no negative prompt is sampled; raise "
        "guidance_scale, or leave the LoRA out"
    )


def _not_fused(method: str, lora: Lora) -> str:
    return (
        f"{method!r} fuses no embeddings, and LoRA {lora.name!r} holds "
        f"{', '.join(repr(word.name[:_MAX_SHOWN]) for word in lora.words)}; use 'merge' or another "
        "method that fuses nothing"
    )
