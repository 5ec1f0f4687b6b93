"""``clora show`` on pictures of strangers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.commands.show import show
from jobs.pictures.picture import with_texts


def write(path: Path, *, side_px: int = 8, **recipe: str) -> Path:
    pixels = np.zeros((side_px, side_px, 3), np.uint8)
    path.write_bytes(with_texts(pixels, "a cat\x1b[2J\nSteps: 3\x9b", recipe))
    return path


def test_what_a_terminal_would_obey_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # It is shown, though it is no recipe: the prompt holds what no row may, the rest is missing.
    assert show(write(tmp_path / "a.png", prompt="a naïve cat \x1b[2J \x9b \u202e")) == 2
    printed, problems = capsys.readouterr()
    assert printed.splitlines()[:2] == ["a cat\\x1b[2J", "Steps: 3\\x9b"]
    assert '"prompt": "a naïve cat \\u001b[2J \\x9b \\u202e"' in printed
    assert (printed + problems).replace("\n", "").isprintable()
    assert "prompt: should hold no control characters" in problems
    assert "seed: is required" in problems


def test_a_picture_that_unpacks_to_more_than_memory_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = write(tmp_path / "a.png", side_px=64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert show(path) == 2
    assert "is not a picture that can be read" in capsys.readouterr().err
