"""Small files of every kind of adapter and every spelling, to be damaged."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from bad_loras import DOTTED, FLAT, NAMES, OLD
from input_kit import safetensors_bytes

METADATA = {
    "ss_output_name": "cat",
    "ss_tag_frequency": '{"10_sks cat": {"sks": 3}}',
    "lora_adapter_metadata": '{"unet.lora_alpha": 2, "unet.alpha_pattern": {"to_k": 1}}',
}

Shapes = Mapping[str, tuple[int, ...]]
Seed = tuple[dict[str, Any], bytes]
"""Header and data."""

_LAYERS = {
    "kohya": FLAT,
    "kohya, Stability's": "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k",
    "LyCORIS": FLAT.replace("lora_unet_", "lycoris_"),
    "kohya's OFT": FLAT.replace("lora_unet_", "oft_unet_"),
    "diffusers": f"unet.{DOTTED}",
    "peft": f"base_model.model.{DOTTED}",
    "ComfyUI": "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k",
    "OneTrainer": "input_blocks.1.1.transformer_blocks.0.attn2.to_k",
    "text": "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "text, ComfyUI": "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
}
_LORA: Shapes = {"lora_down.weight": (2, 6), "lora_up.weight": (4, 2), "alpha": ()}
_HADAMARD: Shapes = {
    "hada_w1_a": (4, 2), "hada_w1_b": (2, 6), "hada_w2_a": (4, 2), "hada_w2_b": (2, 6), "alpha": ()
}  # fmt: skip
_KRONECKER: Shapes = {"lokr_w1": (2, 2), "lokr_w2": (2, 3), "alpha": ()}
_KINDS: Mapping[str, Shapes] = {
    "LoRA": _LORA,
    "LoRA and bias": _LORA | {"diff_b": (4,)},
    "peft's LoRA and bias": {
        "lora_A.weight": (2, 6), "lora_B.weight": (4, 2), "lora_B.bias": (4,)
    },
    "LoCon": {"lora_down.weight": (2, 6, 3, 3), "lora_up.weight": (4, 2, 1, 1), "alpha": ()},
    "Tucker": {
        "lora_down.weight": (2, 6, 1, 1), "lora_mid.weight": (2, 2, 3, 3),
        "lora_up.weight": (4, 2, 1, 1), "alpha": (),
    },
    "DoRA": _LORA | {"dora_scale": (4, 1)},
    "DoRA of inputs": _LORA | {"dora_scale": (1, 6)},
    "peft's DoRA": {
        "lora_A.weight": (2, 6), "lora_B.weight": (4, 2), "lora_magnitude_vector": (4,)
    },
    "LoHa": _HADAMARD,
    "LoHa, DoRA": _HADAMARD | {"dora_scale": (4, 1)},
    "LoHa, Tucker": {
        "hada_t1": (2, 2, 3, 3), "hada_w1_a": (2, 4), "hada_w1_b": (2, 6),
        "hada_t2": (2, 2, 3, 3), "hada_w2_a": (2, 4), "hada_w2_b": (2, 6), "alpha": (),
    },
    "GLoRA": {
        "a1.weight": (6, 2), "a2.weight": (2, 6), "b1.weight": (4, 2), "b2.weight": (2, 6),
        "alpha": (),
    },
    "LoKr": _KRONECKER,
    "LoKr, DoRA": _KRONECKER | {"dora_scale": (1, 6)},
    "LoKr, factored": {
        "lokr_w1_a": (2, 1), "lokr_w1_b": (1, 2), "lokr_w2_a": (2, 1), "lokr_w2_b": (1, 3),
        "alpha": (),
    },
    "LoKr, Tucker": {
        "lokr_w1": (2, 2), "lokr_t2": (1, 1, 3, 3), "lokr_w2_a": (1, 2), "lokr_w2_b": (1, 3),
        "alpha": (),
    },
    "OFT": {"oft_blocks": (2, 2, 2), "alpha": (), "rescale": (4, 1)},
    "OFT of inputs": {"oft_R.weight": (2, 3), "oft_R.scaled_oft": ()},
    "BOFT": {"oft_blocks": (2, 2, 2, 2), "alpha": (), "rescale": (4, 1)},
    "peft's BOFT": {"boft_R": (1, 3, 2, 2), "boft_s": (4, 1)},
    "difference": {"diff": (4, 6), "diff_b": (4,)},
    "norm": {"w_norm": (4,), "b_norm": (4,)},
}  # fmt: skip
_WORDS: Mapping[str, Shapes] = {
    "embedding": {"emb_params": (2, 6)},
    "embedding, SDXL": {"clip_l": (2, 6), "clip_g": (2, 8)},
    "embedding by name": {"<cat>": (6,)},
    "bundle": {f"{FLAT}.{part}": shape for part, shape in _LORA.items()}
    | {"bundle_emb.cat.clip_l": (2, 6)},
}
_EIGHT_BITS = {"F8_E4M3": 0x38, "F8_E5M2": 0x3C}
"""What 1 is."""


def seeds() -> list[Seed]:
    """Return good files of every kind, spelling and precision."""
    return list(_seeds())


def _seeds() -> Iterator[Seed]:
    for layer in _LAYERS.values():
        for parts in _KINDS.values():
            shapes = {f"{layer}.{part}": shape for part, shape in parts.items()}
            yield _seed(shapes, "f2")
            yield _seed(shapes, "f8", METADATA)
    old = f"unet.{OLD}"
    plain = ({f"{old}.down.weight": (2, 6), f"{old}.up.weight": (4, 2)}, *_WORDS.values())
    for shapes in (
        *plain,
        *(dict(zip(n, ((2, 6), (4, 2), ()), strict=True)) for n in NAMES.values()),
    ):
        for metadata in (None, METADATA):
            yield _seed(shapes, "f4", metadata)
    for dtype, one in _EIGHT_BITS.items():
        for parts in _KINDS.values():
            header, data = _seed({f"{FLAT}.{part}": shape for part, shape in parts.items()}, "i1")
            for entry in header.values():
                entry["dtype"] = dtype
            yield header, bytes([one]) * len(data)


def _seed(shapes: Shapes, dtype: str, metadata: Mapping[str, str] | None = None) -> Seed:
    tensors = {name: np.ones(shape, dtype) for name, shape in shapes.items()}
    content = safetensors_bytes(tensors, metadata=metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]
