"""An image as a PNG that says how it was made.

Two texts: ``parameters`` in the form that image viewers and model sites read, and ``clora``, JSON
with everything that making the same image again takes. Each image has its own row's texts, seed
included, whatever batch it was made in.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_FIELDS = ("key", "row_id", "prompt", "negative_prompt", "loras", "seed", "method", "width",
           "height", "sampler", "base_model_digest", "versions", "batch_size", "batch_slot",
           "text_chunks", "digital_source_type")  # fmt: skip
_LORA_FIELDS = ("name", "digest", "kind", "weight", "subject", "trigger", "region_json")
_SHORT_HASH = 12


def encode_png(row: Mapping[str, Any], *, versions_json: str) -> bytes:
    """Return the PNG of a row of ``schemas.SCORED`` that has pixels."""
    image = Image.frombytes("RGB", (row["width"], row["height"]), row["pixels"])
    versions = json.loads(versions_json)
    texts = PngInfo()
    texts.add_text("parameters", infotext(row, versions))
    texts.add_text("clora", json.dumps(_recipe(row, versions)))
    sink = io.BytesIO()
    image.save(sink, "PNG", pnginfo=texts)
    return sink.getvalue()


def infotext(row: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Return the row in the ``parameters`` form: prompt, negative prompt, one line of settings."""
    sampler = json.loads(row["sampler_json"])
    settings: dict[str, object] = {
        "Steps": sampler["num_steps"],
        "Sampler": str(sampler["scheduler"]).upper(),
        "CFG scale": sampler["guidance_scale"],
        "Seed": row["seed"],
        "Size": f"{row['width']}x{row['height']}",
        "Model hash": row["base_model_digest"][:_SHORT_HASH],
        "Composition": row["method"],
    }
    known = [lora for lora in row["loras"] if lora["a1111_hash"]]
    if known:
        hashes = ", ".join(f"{lora['name']}: {lora['a1111_hash']}" for lora in known)
        settings["Lora hashes"] = f'"{hashes}"'
    settings["Version"] = f"clora-batch {versions.get('clora-batch', 'unknown')}"
    lines = [row["prompt"]]
    if row["negative_prompt"]:
        lines.append(f"Negative prompt: {row['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items()))
    return "\n".join(lines)


def _recipe(row: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    values = {
        **row,
        "loras": [{name: lora[name] for name in _LORA_FIELDS} for lora in row["loras"]],
        "sampler": json.loads(row["sampler_json"]),
        "versions": dict(versions),
        # IPTC's name for images that a trained model made.
        "digital_source_type": "trainedAlgorithmicMedia",
    }
    return {name: values[name] for name in _FIELDS}
