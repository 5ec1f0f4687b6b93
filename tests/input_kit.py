"""Small inputs for tests: LoRA files, a catalog, a base model's configuration, manifests.

Written with numpy and the standard library, byte by byte, so that broken files can be built too.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CODES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "int8": "I8"}


def safetensors_bytes(
    tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return a safetensors file of the tensors, in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for name, tensor in tensors.items():
        content = np.ascontiguousarray(tensor).tobytes()
        header[name] = {
            "dtype": CODES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    return raw_bytes(json.dumps(header).encode(), data)


def raw_bytes(header: bytes, data: bytes) -> bytes:
    """Return a file with any header, valid or not."""
    return struct.pack("<Q", len(header)) + header + data


def kohya_tensors(
    *, rank: int = 4, width: int = 96, seed: int = 0, dtype: str = "float16"
) -> dict[str, np.ndarray]:
    """Return a kohya LoRA of one cross-attention layer and its alpha."""
    random = np.random.default_rng(seed)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{layer}.lora_down.weight": random.normal(size=(rank, width)).astype(dtype),
        f"{layer}.lora_up.weight": random.normal(size=(32, rank)).astype(dtype),
        f"{layer}.alpha": np.array(rank, dtype=dtype),
    }


def write_lora(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(kohya_tensors(**options)))
    return path


def adapter_config(rank: int, alpha: float, **settings: Any) -> str:
    """Return the settings that peft writes beside its tensors."""
    plain = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ".*"}
    return json.dumps(plain | settings)


def write_catalog(
    folder: Path,
    names: Sequence[str] = ("cat", "dog"),
    *,
    styles: Sequence[str] = ("ink",),
) -> Path:
    """Write a catalog of concept LoRAs, each the subject it is named for, and style LoRAs."""
    entries: list[dict[str, Any]] = []
    for seed, name in enumerate((*names, *styles)):
        write_lora(folder / f"{name}.safetensors", seed=seed)
        entry: dict[str, Any] = {"name": name, "uri": f"{name}.safetensors"}
        if name in styles:
            entry["kind"] = "style"
        else:
            entry |= {"subject": name, "trigger": f"<{name}>"}
        entries.append(entry)
    path = folder / "loras.yaml"
    path.write_text(yaml.safe_dump({"loras": entries}, sort_keys=False))
    return path


def write_base_model(folder: Path, *, width: int = 96, sample_size: int = 16) -> Path:
    """Write the configuration (and a stand-in for the weights) of a 128 px base model."""
    for name, values in {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": {"sample_size": sample_size, "cross_attention_dim": width},
        "vae/config.json": {"block_out_channels": [8, 8, 8, 8]},
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (folder / "unet/model.safetensors").write_bytes(safetensors_bytes({"w": np.zeros(2, "f4")}))
    return folder


def write_scorer(folder: Path) -> Path:
    """Write what a folder with a DINO model has, with a stand-in for the weights."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors_bytes({"w": np.zeros(2, "f4")}))
    return folder


def row(**changes: Any) -> dict[str, Any]:
    """Return a valid row of the catalog above, with changes; a None takes the column out."""
    values = {"prompt": "a cat and a dog on the beach", "loras": ["cat", "dog"], "seed": 7}
    return {name: value for name, value in (values | changes).items() if value is not None}


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_job(folder: Path, rows: Sequence[Mapping[str, Any] | str], **settings: Any) -> Path:
    """Write a job with catalog, base model and manifest; returns the job file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_catalog(folder / "loras")
    write_base_model(folder / "base")
    write_jsonl(folder / "rows.jsonl", rows)
    values = {
        "manifest": "rows.jsonl",
        "loras": "loras/loras.yaml",
        "output": "out",
        "base_model": "base",
    } | settings
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    return path
