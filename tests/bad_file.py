"""One file that must be refused."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BadFile:
    """One file: its name, its bytes, and words of its refusal."""

    name: str
    content: bytes
    words: str
