"""A row as image viewers and model sites read it: the ``parameters`` text of a PNG.

Prompt, negative prompt, one line of settings, in the form that AUTOMATIC1111's web UI writes. Its
readers find the parts by words, so words of a prompt that they would take for a part's beginning
get a space before the colon; CLIP's tokenizer reads the same tokens then. The exact prompt is in
the image's ``clora`` text.

LoRA hashes are there twice, because each form has readers that do not know the other. Weights have
a field each, since a value with commas in it is cut at them by some readers, and the prompt gets no
``<lora:NAME:WEIGHT>``, which was never a part of it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_SHORT_HASH = 12
_SAMPLERS = {"ddim": "DDIM", "dpmpp": "DPM++ 2M", "euler": "Euler"}
"""Names of the solvers there."""

_PART = re.compile(r"(Negative prompt|^\s*Steps)(?=:)", re.MULTILINE)
"""What a reader takes for the beginning of a part, some of them anywhere in a line."""

_NEEDS_QUOTES = re.compile(r"[,:\n\"]")


def infotext(row: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Return the text of a row of ``schemas.SCORED``.

    Args:
        row: The row.
        versions: Of software, by name.
    """
    sampler = json.loads(row["sampler_json"])
    settings: dict[str, object] = {
        "Steps": sampler["num_steps"],
        "Sampler": _SAMPLERS.get(sampler["scheduler"], sampler["scheduler"]),
        "CFG scale": sampler["guidance_scale"],
        "Seed": row["seed"],
        "Size": f"{row['width']}x{row['height']}",
        "Model hash": row["base_model_digest"][:_SHORT_HASH],
        "Composition": row["method"],
    }
    if sampler.get("clip_skip"):
        settings["Clip skip"] = sampler["clip_skip"]
    for number, lora in enumerate(row["loras"], start=1):
        settings[f"Lora {number}"] = lora["name"]
        settings[f"Lora weight {number}"] = lora["weight"]
    hashes = {lora["name"]: lora["a1111_hash"] for lora in row["loras"] if lora["a1111_hash"]}
    if hashes:
        settings["Lora hashes"] = ", ".join(f"{name}: {hash_}" for name, hash_ in hashes.items())
    settings["Version"] = f"clora-batch {versions.get('clora-batch', 'unknown')}"
    lines = [_apart(row["prompt"])]
    if row["negative_prompt"]:
        lines.append(f"Negative prompt: {_apart(row['negative_prompt'])}")
    fields = [f"{name}: {_value(value)}" for name, value in settings.items()]
    if hashes:
        by_kind = {f"lora:{name}": hash_ for name, hash_ in hashes.items()}
        # Its readers take the text up to the first closing brace.
        fields.append(f"Hashes: {json.dumps(by_kind, ensure_ascii=False)}")
    lines.append(", ".join(fields))
    return "\n".join(lines)


def _apart(prompt: str) -> str:
    """Return a prompt in which no reader finds the beginning of another part."""
    return _PART.sub(r"\1 ", prompt)


def _value(value: object) -> str:
    """Return a value as a field has it: in quotes, as JSON, where it holds what ends a field."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _NEEDS_QUOTES.search(text) else text
