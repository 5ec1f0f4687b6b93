"""What a file is that is no safetensors, told by its first bytes.

"Invalid header" is no help to someone who has saved a login page, a preview or a git-lfs pointer
under the weights' name. Pickles are told apart above all: loading one runs code.
"""

PICKLE_SUFFIXES = (".pt", ".ckpt", ".bin", ".pth", ".pkl", ".pickle", ".joblib", ".zip")
_PICKLE = "is a Python pickle, which can run code when loaded; convert it to .safetensors"
_PICTURE = "is a picture (a preview?) and not the weights; download the .safetensors file"
_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "is a zip archive or " + _PICKLE.removeprefix("is ")),
    (b"\x80\x00", _PICKLE),
    (b"\x80\x01", _PICKLE),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
    (b"(dp", _PICKLE),
    (b"ccollections\n", _PICKLE),
    (b"c__builtin__\n", _PICKLE),
    (b"cos\n", _PICKLE),
    (b"cposix\n", _PICKLE),
    (b"PK\x05\x06", "is an empty zip archive; download the .safetensors file"),
    (
        b"version https://git-lfs",
        "is a git-lfs pointer and not the weights; run `git lfs pull` where it came from",
    ),
    (b"\x1f\x8b", "is gzip-compressed; unpack it first"),
    (b"BZh", "is bzip2-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it first"),
    (b"\xfd7zXZ\x00", "is xz-compressed; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive; unpack it and name the .safetensors file"),
    (b"Rar!\x1a\x07", "is a RAR archive; unpack it and name the .safetensors file"),
    (b"GGUF", "is a GGUF file; use the .safetensors version"),
    (b"\x93NUMPY", "is a NumPy array; save the LoRA as .safetensors"),
    (b"\x89HDF", "is an HDF5 file; save the LoRA as .safetensors"),
    (b"\x89PNG", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"RIFF", _PICTURE),
    (b"%PDF", "is a PDF and not the weights; download the .safetensors file"),
)


def other_format(start: bytes) -> str | None:
    """Return what a file that begins with ``start`` is, as the end of a sentence; None if unknown.

    Args:
        start: The first bytes, a few hundred of them.
    """
    for magic, sentence in _MAGICS:
        if start.startswith(magic):
            return sentence
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return (
            "is a web page and not the weights; the download link needed a login or has moved: "
            "download it again"
        )
    if text.startswith((b'{"', b"{'")):
        return "is JSON text (a server's answer?) and not the weights; download it again"
    return None
