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

from pipelines.units.infotext import infotext

_FIELDS = ("key", "row_id", "prompt", "negative_prompt", "loras", "seed", "method", "width",
           "height", "sampler", "base_model_digest", "versions", "batch_size", "batch_slot",
           "text_chunks", "digital_source_type")  # fmt: skip
_LORA_FIELDS = ("name", "digest", "kind", "weight", "subject", "trigger", "region_json")


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


def _lora(lora: Mapping[str, Any]) -> dict[str, Any]:
    # The names of embeddings are in no tensor: a file may be called something else by now.
    words = {"words": lora["words"]} if lora.get("words") else {}
    return {name: lora[name] for name in _LORA_FIELDS} | words


def _recipe(row: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    values = {
        **row,
        "loras": [_lora(lora) for lora in row["loras"]],
        "sampler": json.loads(row["sampler_json"]),
        "versions": dict(versions),
        # IPTC's name for images that a trained model made.
        "digital_source_type": "trainedAlgorithmicMedia",
    }
    remarks = {"remarks": row["remarks"]} if row["remarks"] else {}
    return {name: values[name] for name in _FIELDS} | remarks
