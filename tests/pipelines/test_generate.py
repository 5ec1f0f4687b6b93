from collections.abc import Sequence

import numpy as np
import pytest
from engine_kit import BAD_ROW, POISON, SIDE_PX, FakeModelHost, composed_rows, lora, row, rows

from clora_core.recipe.errors import Stage
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.stages.generate import MAX_MESSAGE_LENGTH


class Recorder:
    """Composes like the fake engine and remembers the seeds of each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        self.calls.append([row.seed for row in rows])
        return FakeModelHost().compose(rows)


def test_every_row_comes_back_in_order_with_its_own_pixels():
    results, num_alone = composed_rows(rows(3), Recorder())
    assert num_alone == 0
    for seed, result in enumerate(results):
        noise = np.random.default_rng(seed)
        expected = noise.integers(0, 255, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        assert result["pixels"] == expected.tobytes()


def test_a_row_whose_lora_file_is_broken_is_never_composed_and_its_neighbours_are():
    broken = lora("dog", problem="/loras/dog.safetensors is cut off after 12 bytes")
    compose = Recorder()
    results, _ = composed_rows([row(0), row(1, loras=(lora("cat"), broken))], compose)
    assert compose.calls == [[0]]
    assert results[0]["pixels"]
    assert results[1]["failure"] == {
        "stage": "lora",
        "error": "LoraFileError",
        "message": "/loras/dog.safetensors is cut off after 12 bytes",
    }


def test_a_row_s_own_fault_is_a_value_and_nothing_is_tried_twice():
    compose = Recorder()
    results, _ = composed_rows([row(0, prompt=BAD_ROW), row(1)], compose)
    assert compose.calls == [[0, 1]]
    assert results[0]["failure"]["error"] == "PromptError"
    assert results[1]["pixels"]


def test_a_unit_that_fails_as_a_whole_is_tried_row_by_row():
    compose = Recorder()
    manifest = [row(0), row(1, prompt=POISON), row(2)]
    results, num_alone = composed_rows(manifest, compose)
    assert compose.calls == [[0, 1, 2], [0], [1], [2]]
    assert num_alone == 3
    assert [result.get("failure") is None for result in results] == [True, False, True]
    assert results[1]["failure"] == {
        "stage": "generate",
        "error": "MemoryError",
        "message": "the machine has no room for this",
    }


def test_a_lost_device_is_raised_and_not_blamed_on_the_rows():
    calls = 0

    def compose(_: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        nonlocal calls
        calls += 1
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        composed_rows(rows(3), compose)
    assert calls == 1


def test_a_lora_that_cannot_be_fetched_fails_its_row_alone():
    away = lora("dog", uri="nowhere://bucket/dog.safetensors")
    results, _ = composed_rows([row(0), row(1, loras=(away,))], Recorder())
    assert results[0]["pixels"]
    assert results[1]["failure"]["stage"] == "lora"
    assert "nowhere://" in results[1]["failure"]["message"]


def test_an_endless_message_is_cut_and_an_empty_one_says_its_class():
    def compose(_: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        return [
            RowFailure(stage=Stage.SAMPLE, error="E", message="x" * 10_000),
            RowFailure(stage=Stage.SAMPLE, error="E", message=""),
        ]

    first, second = composed_rows(rows(2), compose)[0]
    assert len(first["failure"]["message"]) == MAX_MESSAGE_LENGTH
    assert second["failure"]["message"] == "E"
