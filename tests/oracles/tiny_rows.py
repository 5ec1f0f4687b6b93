"""Rows and settings for the tiny models, each valid as it is; tests state their difference."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from oracles.tiny_loras import TinyLoras

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Row


def tensor_digest(path: Path) -> str:
    """Return the SHA-256 of a safetensors file's tensor bytes."""
    content = path.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


def lora_use(path: Path, **fields: Any) -> Lora:
    """Return how a row uses the LoRA file; a concept of weight 1 unless ``fields`` say else."""
    return Lora(
        **{
            "name": path.stem,
            "uri": str(path),
            "digest": tensor_digest(path),
            "kind": "concept",
            **fields,
        }
    )


def with_adapter(row: Row) -> Row:
    """Return a row of a method that fuses with its first LoRA for an adapter, others as they are.

    What is fused how has tests of its own; to the sampler an adapter is one more LoRA.
    """
    if METHODS[row.method].fused_by is None:
        return row
    return replace(row, fused=row.loras[0])


def tiny_sampler(**fields: Any) -> SamplerConfig:
    """Return settings that go through every branch of the method in few steps."""
    return SamplerConfig(
        **{
            "num_steps": 4,
            "guide_until_step": 2,
            "refine_steps": (0,),
            "num_refine_updates": 2,
            "guidance_scale": 3.0,
            **fields,
        }
    )


def two_concept_row(loras: TinyLoras, **fields: Any) -> Row:
    """Return a cat-and-dog row at the tiny model's size; ``fields`` replace the row's own."""
    return Row(
        **{
            "prompt": "a cat and a dog",
            "loras": (
                lora_use(loras["peft_attention"], subject="cat", trigger="sks"),
                lora_use(loras["peft_text"], subject="dog", trigger="zwx"),
            ),
            "seed": 7,
            "method": "clora",
            "sampler": tiny_sampler(),
            "width": 256,
            "height": 256,
            **fields,
        }
    )
