"""Files that are not safetensors, or whose header says what isn't so, built in code."""

import json
import pickle
import struct
from collections.abc import Iterator
from typing import Any

from bad_file import BadFile
from input_kit import raw_bytes


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} | changes


def headers() -> Iterator[BadFile]:
    """Headers that are not what safetensors has, over two bytes of data."""
    a_lie = "its shape"
    texts: dict[str, tuple[Any, str]] = {
        "empty": ({}, "holds no tensors"),
        "only-metadata": ({"__metadata__": {"a": "b"}}, "holds no tensors"),
        "array": ([], "not a JSON object"),
        "text": ("a", "not a JSON object"),
        "null-metadata-list": ({"__metadata__": [1], "a": entry()}, "metadata that is not a JSON"),
        "metadata-number": ({"__metadata__": {"a": 1}, "a": entry()}, "'a' is not text"),
        "metadata-null": ({"__metadata__": {"a": None}, "a": entry()}, "'a' is not text"),
        "metadata-nested": ({"__metadata__": {"a": {}}, "a": entry()}, "'a' is not text"),
        "metadata-half": ({"__metadata__": {"a": "\ud800"}, "a": entry()}, "'a' is not text"),
        "metadata-empty-list": ({"__metadata__": [], "a": entry()}, "metadata that is not a JSON"),
        "entry-extra": ({"a": entry(extra=1)}, "'extra', which safetensors does not know"),
        "entry-null": ({"a": None}, "not described by a JSON object"),
        "entry-list": ({"a": [entry()]}, "not described by a JSON object"),
        "no-dtype": ({"a": {"shape": [1], "data_offsets": [0, 2]}}, "dtype 'None'"),
        "dtype-number": ({"a": entry(dtype=1)}, "dtype '1'"),
        "dtype-unknown": ({"a": entry(dtype="F4")}, "dtype 'F4'"),
        "dtype-list": ({"a": entry(dtype=["F16"])}, "dtype"),
        "no-shape": ({"a": {"dtype": "F16", "data_offsets": [0, 2]}}, "no valid shape"),
        "shape-negative": ({"a": entry(shape=[-1])}, "no valid shape"),
        "shape-float": ({"a": entry(shape=[1.0])}, "no valid shape"),
        "shape-true": ({"a": entry(shape=[True])}, "no valid shape"),
        "shape-text": ({"a": entry(shape="1")}, "no valid shape"),
        "shape-huge": ({"a": entry(shape=[2**60])}, "no valid shape"),
        "shape-product": ({"a": entry(shape=[2**40, 2**40])}, a_lie),
        "shape-deep": ({"a": entry(shape=[1] * 9)}, "no valid shape"),
        "no-offsets": ({"a": {"dtype": "F16", "shape": [1]}}, "no valid shape"),
        "offsets-three": ({"a": entry(data_offsets=[0, 1, 2])}, "no valid shape"),
        "offsets-one": ({"a": entry(data_offsets=[0])}, "no valid shape"),
        "offsets-turned": ({"a": entry(data_offsets=[2, 0])}, a_lie),
        "offsets-negative": ({"a": entry(data_offsets=[-2, 0])}, "no valid shape"),
        "offsets-outside": ({"a": entry(data_offsets=[4, 6])}, "is truncated"),
        "offsets-huge": ({"a": entry(data_offsets=[2**47, 2**47 + 2])}, "is truncated"),
        "a-lie": ({"a": entry(shape=[7])}, a_lie),
        "gap": ({"a": entry(), "b": entry(data_offsets=[4, 6])}, "truncated"),
        "overlap": ({"a": entry(), "b": entry()}, "overlaps the tensor before it"),
        "name-empty": ({"": entry()}, "no part of a LoRA"),
        "name-half": ({"\ud800.lora_A.weight": entry()}, "not plain text"),
        "name-escape": ({"\x1b[2J.lora_A.weight": entry()}, "not plain text"),
        "name-turned": ({"\u202e.lora_A.weight": entry()}, "not plain text"),
        "name-dots": ({"../../etc/passwd": entry()}, "no part of a LoRA"),
    }
    for name, (header, words) in texts.items():
        yield BadFile(f"header-{name}", raw_bytes(json.dumps(header).encode(), b"ab"), words)
    raw: dict[str, tuple[bytes, str]] = {
        "nothing": (b"", "not a JSON object"),
        "spaces": (b" " * 64, "not a JSON object"),
        "space-first": (b" " + json.dumps({"a": entry()}).encode(), "not a JSON object"),
        "mark": (b"\xef\xbb\xbf{}", "not a JSON object"),
        "half": (b'{"a": ', "not valid JSON"),
        "two": (b"{}{}", "not valid JSON"),
        "latin": (b'{"a\xff": 1}', "not valid JSON"),
        "nul": (b'{"a": 1}\0\0', "not valid JSON"),
        "twice": (b'{"a": {}, "a": {}}', "'a' is given twice"),
        "twice-inside": (b'{"a": {"dtype": "F16", "dtype": "F32"}}', "'dtype' is given twice"),
        "nan": (b'{"a": NaN}', "NaN is no JSON number"),
        "infinity": (b'{"a": {"shape": [Infinity]}}', "Infinity is no JSON number"),
        "deep": (b'{"a":' * 20_000, "not valid JSON"),
        "digits": (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        "comment": (b'{"a": 1 /* x */}', "not valid JSON"),
    }
    for name, (text, words) in raw.items():
        yield BadFile(f"raw-{name}", raw_bytes(text, b"ab"), words)


def other_formats(whole: bytes) -> Iterator[BadFile]:
    """What people save under a LoRA's name, and pieces of ``whole``, a good file."""
    for protocol in range(2, 6):
        content = pickle.dumps({"a": [1] * 99}, protocol=protocol)
        yield BadFile(f"pickle-{protocol}", content, "is a Python pickle")
    starts: dict[str, tuple[bytes, str]] = {
        "pickle-0": (b"(dp0\nS'a'\np1\nI1\ns.", "is a Python pickle"),
        "pickle-system": (b"cos\nsystem\n(S'true'\ntR.", "is a Python pickle"),
        "zip": (b"PK\x03\x04", "is a zip archive or a Python pickle"),
        "empty-zip": (b"PK\x05\x06" + b"\0" * 18, "is an empty zip archive"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid x", "run `git lfs pull`"),
        "gzip": (b"\x1f\x8b\x08", "is gzip-compressed"),
        "bzip2": (b"BZh91AY&SY", "is bzip2-compressed"),
        "zstd": (b"\x28\xb5\x2f\xfd", "is zstd-compressed"),
        "xz": (b"\xfd7zXZ\x00", "is xz-compressed"),
        "7z": (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
        "rar": (b"Rar!\x1a\x07\x01", "is a RAR archive"),
        "gguf": (b"GGUF\x03", "is a GGUF file"),
        "numpy": (b"\x93NUMPY\x01\x00v\x00{", "is a NumPy array"),
        "hdf5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        "png": (b"\x89PNG\r\n\x1a\n", "is a picture"),
        "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a picture"),
        "webp": (b"RIFF\x24\x00\x00\x00WEBP", "is a picture"),
        "pdf": (b"%PDF-1.7", "is a PDF"),
        "html": (b"\n<!DOCTYPE html><html>", "is a web page"),
        "login": (b"<HTML><head>Sign in", "is a web page"),
        "xml": (b'<?xml version="1.0"?><Error>', "is a web page"),
        "json": (b'{"error": "not found"}', "is JSON text"),
        "python": (b"{'error': 1}", "is JSON text"),
    }
    for name, (start, words) in starts.items():
        yield BadFile(f"is-{name}", start + b"\0" * 64, words)
    for kept in (1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        yield BadFile(f"cut-at-{kept}", whole[:kept], "runcated")
    yield BadFile("empty", b"", "is empty (0 bytes)")
    yield BadFile("zeros", bytes(4096), "not a JSON object")
    yield BadFile("longer", whole + b"more", "holds 4 bytes after its last tensor")
    yield BadFile("length-2-40", struct.pack("<Q", 2**40) + b"{}", "truncated or not safetensors")
    yield BadFile("length-max", b"\xff" * 8 + b"{}", "truncated or not safetensors")
    big = struct.pack("<Q", 11 * 1024**2) + b"{" + b" " * (11 * 1024**2)
    yield BadFile("header-11-mib", big, "at most 10,485,760 can be")
