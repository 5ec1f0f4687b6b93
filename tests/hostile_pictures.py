"""Pictures that no output ever held: every field of the recipe gone or of another type, files
that are damaged, cut, enormous when unpacked, or no PNG at all.
"""

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from PIL import Image

SIDE_PX = 128

WRONG: tuple[Any, ...] = (
    None, True, -1, 3.7, 10**30, 1e308, "", "0", "x" * 5000, "\x1b[2J", "\ud800", "../../x",
    [], ["a"], [[]], {}, {"a": {"b": []}}, [None] * 50,
)  # fmt: skip
"""Values of every type; of each field all but a few are wrong."""

OPTIONAL = ("row_id", "batch_size", "batch_slot", "digital_source_type")

_TEXTS = ("", "0", "../../x")
_SHORT = ("0", "../../x")
RIGHT: Mapping[str, tuple[Any, ...]] = {
    "row_id": (None, *_SHORT),
    "negative_prompt": _TEXTS,
    "batch_size": (None,),
    "batch_slot": (None,),
    "digital_source_type": (None, *_SHORT),
    "sampler": ({},),
    "versions": ({},),
    "loras[].name": _SHORT,
    "loras[].weight": (-1, 3.7),
    "loras[].trigger": (None, *_SHORT),
    "loras[].region_json": (None,),
    "sampler.num_steps": (True, "30"),
}
"""Values of ``WRONG`` that are right for a field."""


def recipe(loras: list[dict[str, Any]], base_model_digest: str) -> dict[str, Any]:
    return {
        "key": "ab" * 32,
        "row_id": "r1",
        "prompt": "a cat and a dog on the beach",
        "negative_prompt": "",
        "loras": loras,
        "seed": 7,
        "method": "merge",
        "width": SIDE_PX,
        "height": SIDE_PX,
        "sampler": {"num_steps": 3, "guide_until_step": 0},
        "base_model_digest": base_model_digest,
        "versions": {"engine": "1"},
        "batch_size": 2,
        "batch_slot": 1,
        "digital_source_type": "trainedAlgorithmicMedia",
    }


def changed_recipes(good: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield (what was changed, the recipe, whether it still holds)."""
    for name in good:
        without = {key: value for key, value in good.items() if key != name}
        yield f"no {name}", without, name in OPTIONAL
        for value in WRONG:
            is_right = _is_among(value, RIGHT.get(name, ()))
            yield f"{name} = {str(value)[:40]!r}", {**good, name: value}, is_right
    for name in good["loras"][0]:
        without = deepcopy(dict(good))
        del without["loras"][0][name]
        yield f"no loras[].{name}", without, False
        for value in WRONG:
            found = deepcopy(dict(good))
            found["loras"][0][name] = value
            is_right = _is_among(value, RIGHT.get(f"loras[].{name}", ()))
            yield f"loras[].{name} = {str(value)[:40]!r}", found, is_right
    for wrong in ({"x": 1}, {"num_steps": 0}, {"num_steps": 10**9}, {"scheduler": "x"}, {1: {}}):
        yield f"sampler {wrong}", {**good, "sampler": {**good["sampler"], **wrong}}, False
    for region in REGIONS:
        found = deepcopy(dict(good))
        found["loras"][0]["region_json"] = region
        yield f"region {region[:40]}", found, False
    yield "a size of its own", {**good, "width": 32768, "height": 32768}, False
    yield "a LoRA twice", {**good, "loras": [good["loras"][0]] * 2}, False
    yield "a field of a later version", {**good, "later\x1b[2J": [{}]}, True
    lora = {**good["loras"][0], "later": 1}
    later = {"name": "x", "digests": [], "steps": 9, "Seed": 7, "trigger_word": "x", "size": 128}
    yield "fields of a later version that are called as others", {**good, **later}, True
    yield "a LoRA's field of a later version", {**good, "loras": [lora]}, False


REGIONS = (
    "", "{", "[]", "null", "1", "[" * 9999, '{"box": [0, 0, 1, 1]}', '{"mode": "restrict"}',
    '{"box": [0, 0, 9, 1], "mode": "restrict"}', '{"box": [0, 0, NaN, 1], "mode": "restrict"}',
    '{"box": "x", "mode": "restrict"}', '{"mask": {}, "mode": "replace"}',
    '{"mask": 1, "mode": "replace"}', '{"mask": {"uri": 1, "sha256": "0"}, "mode": "replace"}',
    '{"box": [0, 0, 1, 1], "mode": "x"}', '{"mode": "restrict", "mode": "replace"}',
)  # fmt: skip


def recipe_texts(good: str) -> Iterator[tuple[str, str]]:
    """Yield (what it is, the text) of recipes that are no JSON objects of ours."""
    for text in ("", "{", "[]", "null", "1", '"x"', "NaN", "Infinity", "[]" + good):
        yield f"recipe {text[:10]!r}", text
    yield "deep lists", "[" * 100_000
    yield "a deep mapping", '{"a":' * 500 + "1" + "}" * 500
    yield "deep in a field", good[:-1] + ', "x": ' + "[" * 300 + "]" * 300 + "}"
    yield "a key twice", good[:-1] + ', "seed": 1}'
    yield "no number", good.replace('"seed": 7', '"seed": NaN')
    yield "a long number", good.replace('"seed": 7', '"seed": ' + "7" * 5000)
    yield "a long text", good.replace("a cat", "a cat" * 500_000)


def png(
    recipe_text: str | None = None,
    *,
    pixels: np.ndarray | None = None,
    chunks: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """Return a PNG with the recipe and more chunks before its pixels."""
    sink = io.BytesIO()
    side = (SIDE_PX, SIDE_PX, 3)
    Image.fromarray(np.zeros(side, np.uint8) if pixels is None else pixels).save(sink, "PNG")
    plain = sink.getvalue()
    inserted = b"".join(chunk(kind, content) for kind, content in chunks or ())
    if recipe_text is not None:
        content = b"clora\0\0\0\0\0" + recipe_text.encode("utf-8", "surrogatepass")
        inserted += chunk(b"iTXt", content)
    return plain[:33] + inserted + plain[33:]


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def damaged_files(good: str) -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, the content) of files that are no picture of ours."""
    whole = png(good)
    yield "nothing", b""
    yield "a text", b"hello"
    yield "a signature", whole[:8]
    for share in (0.1, 0.5, 0.9, 0.999):
        yield f"{share} of a PNG", whole[: int(len(whole) * share)]
    yield "no end", whole[:-12]
    yield "a broken checksum", whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    yield "a chunk of gigabytes", whole[:33] + struct.pack(">I4s", 2**31, b"tEXt") + whole[33:]
    yield "a short header", whole[:8] + chunk(b"IHDR", b"\0\0\0\1") + whole[33:]
    yield "no recipe", png()
    huge = struct.pack(">IIBBBBB", 32768, 32768, 8, 2, 0, 0, 0)
    yield "a bomb of pixels", whole[:8] + chunk(b"IHDR", huge) + whole[33:]
    zeros = zlib.compress(b" " * 50_000_000, 9)
    yield "a bomb of text", png(chunks=[(b"zTXt", b"clora\0\0" + zeros)])
    yield "an international bomb", png(chunks=[(b"iTXt", b"clora\0\1\0\0\0" + zeros)])
    million = zlib.compress(b" " * 1_000_000, 9)
    many = [(b"zTXt", b"t%d\0\0" % n + million) for n in range(80)]
    yield "many bombs", png(good, chunks=many)
    yield "a text of megabytes", png(good, chunks=[(b"tEXt", b"x\0" + b" " * 3_000_000)])
    yield "a million chunks", whole[:-12] + chunk(b"heAp", b"") * 10**6 + whole[-12:]
    yield "an animation", png(good, chunks=[(b"acTL", struct.pack(">II", 10**6, 0))])
    for name, kind in (("JPEG", "x.jpg"), ("GIF", "x.gif"), ("BMP", "x.bmp")):
        sink = io.BytesIO()
        Image.new("RGB", (8, 8)).save(sink, name)
        yield kind, sink.getvalue()
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


def other_modes(good: str) -> Iterator[tuple[str, bytes]]:
    """Yield (mode, the content) of pictures that are ours but for how they keep their pixels."""
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        sink = io.BytesIO()
        Image.new(mode, (SIDE_PX, SIDE_PX)).save(sink, "PNG")
        plain = sink.getvalue()
        content = b"clora\0\0\0\0\0" + good.encode()
        yield mode, plain[:33] + chunk(b"iTXt", content) + plain[33:]


def as_text(recipe_: Any) -> str:
    return json.dumps(recipe_)


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    return any(type(value) is type(other) and value == other for other in values)
