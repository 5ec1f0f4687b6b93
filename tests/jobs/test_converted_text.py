"""What ``clora loras convert`` says of a file, line by line."""

from pathlib import Path

from jobs.console.converted import converted_text


def layer(rank: int, error: float, *, is_cut: bool = True) -> dict[str, object]:
    return {"rank": rank, "error": error, "is_cut": is_cut}


def account(layers: dict[str, dict[str, object]], **values: object) -> dict[str, object]:
    limits = {"max_rank": 128, "max_error": 0.01}
    base: dict[str, object] = {"from": "cat.safetensors", "kinds": ["LoKr"], "layers": layers}
    rest = {"error": 0.00512, "left_out": {}, "limits": limits, "base_model": None}
    return base | rest | values


def test_exact_layers_are_said_to_be_exact_and_the_worst_of_the_others_are_named():
    cut = {f"unet.{number:02}": layer(64, number / 1000) for number in range(12)}
    layers = {"unet.a": layer(4, 0.0, is_cut=False), "unet.b": layer(8, 3e-4, is_cut=False), **cut}
    lines = converted_text(Path("out.safetensors"), 12_345_678, account(layers)).splitlines()
    assert lines[:5] == [
        "out.safetensors: plain LoRA of 14 layers, 12.3 MB, from cat.safetensors (LoKr)",
        "  exact:    2 layers were products of two factors and stay such, ranks 4 to 8 "
        "(rounding 0.0003)",
        "  by SVD:   12 layers, rank 64",
        "  error:    0.0051 in all (|D - D'| / |D|, D the difference of the weights)",
        "            0.011 at rank 64: unet.11",
    ]
    assert lines[-1] == (
        "            at most 0.001 in 2 others; the file's metadata (clora_converted) have each"
    )


def test_layers_that_would_need_a_higher_rank_are_counted():
    layers = {"a": layer(128, 0.02), "b": layer(128, 0.009), "c": layer(9, 0.0101)}
    said = converted_text(Path("x"), 1, account(layers))
    assert "note:     1 layers would need more than rank 128 for an error of 0.01" in said
    limits = {"max_rank": 128, "max_error": 0.0}
    assert "note:" not in converted_text(Path("x"), 1, account(layers, limits=limits))


def test_what_a_terminal_would_obey_is_not_printed():
    said = converted_text(
        Path("\x1b[31m"), 1, account({"a": layer(1, 0.0)}, **{"from": "\x07.safetensors"})
    )
    assert not {"\x1b", "\x07"} & set(said)
