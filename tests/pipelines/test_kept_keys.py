"""Keys of rows and ids of units stay what they were, or finished outputs would be made again.

``kept_keys.json`` was written by the first build and is never written anew: where an old row's
pixels change beyond rounding, ``ENGINE_VERSION`` steps, and then this file is told so by hand.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from input_kit import safetensors_bytes, write_base_model, write_jsonl, write_scorer

from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import JobFile, load_job
from jobs.job.run_request import run_request
from pipelines.ledger.ledger import read_ledger
from pipelines.run_plan import plan_references, plan_rows

KEPT: dict[str, Any] = json.loads((Path(__file__).parent / "kept_keys.json").read_text())
LAYER = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def numbers(*shape: int, start: int, dtype: str = "float32") -> np.ndarray:
    """Return numbers that are the same on every machine and in every release of numpy."""
    count = int(np.prod(shape))
    return ((np.arange(start, start + count) * 37 % 101 - 50) / 64).reshape(shape).astype(dtype)


def kohya(start: int, *, rank: int = 4, dtype: str = "float16") -> bytes:
    return safetensors_bytes(
        {
            f"lora_unet_{LAYER}.lora_down.weight": numbers(rank, 96, start=start, dtype=dtype),
            f"lora_unet_{LAYER}.lora_up.weight": numbers(32, rank, start=start, dtype=dtype),
            f"lora_unet_{LAYER}.alpha": np.array(rank / 2, dtype=dtype),
        }
    )


def peft(start: int, metadata: dict[str, str] | None) -> bytes:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {
        f"{layer}.lora_A.weight": numbers(4, 96, start=start),
        f"{layer}.lora_B.weight": numbers(32, 4, start=start),
    }
    return safetensors_bytes(tensors, metadata=metadata)


STRENGTH = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}
FILES = {
    "cat": kohya(0),
    "dog": peft(3, None),
    "fox": peft(5, STRENGTH),
    "owl": kohya(9, rank=2, dtype="float32"),
    "ink": kohya(11),
    "oil": peft(13, None),
    "broken": b"not a LoRA at all",
}


def rows() -> list[dict[str, Any]]:
    cat, dog = {"lora": "cat", "subject": "cat"}, {"lora": "dog", "weight": 0.75}
    left = {"box": [0.0, 0.0, 0.5, 1.0]}
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "seed": {"seed": 2**63 - 1},
        "negative": {"negative_prompt": "blurry; naïve"},
        "size": {"width": 192, "height": 128},
        "float": {"loras": [cat, {"lora": "dog", "weight": 1.0}]},
        "weights": {"loras": [{"lora": "cat", "weight": -0.5}, dog]},
        "order": {"loras": ["dog", "cat"]},
        "text": {"loras": "cat; dog:0.8"},
        "three": {"loras": ["cat", "dog", "fox"], "prompt": "a cat, a dog and a fox"},
        "style": {"loras": ["cat", "dog", "ink"]},
        "styles": {"loras": ["ink", {"lora": "oil", "weight": 0.5}], "method": "merge"},
        "trigger": {"loras": [{"lora": "cat", "trigger": "sks"}, "dog"]},
        "subject": {"loras": [{"lora": "cat", "subject": "kitten"}], "prompt": "a kitten"},
        "box": {"loras": [cat | {"region": left}, dog]},
        "list": {"loras": [cat | {"region": [0, 0.25, 0.5, 1]}, dog]},
        "replace": {"loras": [cat | {"region": left | {"mode": "replace"}}, dog]},
        "mask": {"loras": [cat | {"region": {"mask": "mask.pgm"}}, dog]},
        "base": {"loras": [], "method": "base", "prompt": "an empty beach"},
        "single": {"loras": ["owl"], "method": "single", "prompt": "an owl"},
        "broken": {"loras": ["broken"], "method": "single", "prompt": "a broken thing"},
        "other model": {"base_model": "other"},
        "other size": {"base_model": "other", "width": 96},
        "carried": {"shelf": "b", "price": 3.5, "row_id": "carried"},
        "switch": {"method": "switch", "sampler": {"switch_every": 3}},
        "composite": {"method": "composite"},
        "merge": {"method": "merge", "sampler": {"merge_weights": "mean"}},
        "steps": {"sampler": {"num_steps": 30, "guidance_scale": 5.0}},
        "tuple": {"sampler": {"refine_steps": [0, 5], "num_refine_updates": 2}},
        "preset": {"sampler": {"preset": "demo"}},
        "null setting": {"sampler": {"map_size": None, "temperature": 0.25}},
        "json setting": {"sampler": '{"step_size": 7}'},
        "half": {"sampler": {"attention_half": "both", "reforward_after_update": True}},
        "unicode": {"prompt": "a cat and a dog — 海辺, \u00e9"},
    }
    plain = {"prompt": "a cat and a dog on the beach", "loras": ["cat", "dog"], "seed": 7}
    named = [plain | {"row_id": name} | change for name, change in changes.items()]
    many = [plain | {"row_id": f"seed {seed}", "seed": seed} for seed in range(20, 40)]
    return [*named, *many, plain | {"row_id": "again"}, plain | {"seed": 8}]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[JobFile, PreparedJob]:
    folder = tmp_path_factory.mktemp("kept")
    for name, content in FILES.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    entries = [
        {"name": name, "uri": f"{name}.safetensors"}
        | (
            {"kind": "style"}
            if name in ("ink", "oil")
            else {"subject": "thing" if name == "broken" else name, "trigger": f"<{name}>"}
        )
        for name in FILES
    ]
    (folder / "loras.yaml").write_text(yaml.safe_dump({"loras": entries}))
    write_base_model(folder / "base")
    write_base_model(folder / "other", sample_size=32)
    write_scorer(folder / "dino")
    (folder / "mask.pgm").write_bytes(b"P5 2 1 255\n\x00\xff")
    write_jsonl(folder / "rows.jsonl", rows())
    values = {
        "manifest": "rows.jsonl",
        "loras": "loras.yaml",
        "output": "out",
        "base_model": "base",
        "base_models": {"other": "other"},
        "scoring": {"model": "dino", "references": 12},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    loaded = load_job(folder / "job.yaml")
    return loaded, prepare(loaded)


def with_unit_size(job: JobFile, rows_per_unit: int, dtype: str = "float32") -> JobFile:
    changes = {"rows_per_unit": rows_per_unit, "dtype": dtype}
    return job.model_copy(update={"resources": job.resources.model_copy(update=changes)})


def test_row_keys_are_kept(job: tuple[JobFile, PreparedJob]):
    assert [row.key for row in job[1].rows] == KEPT["keys"]


def test_row_keys_of_another_precision_are_kept(job: tuple[JobFile, PreparedJob]):
    prepared = prepare(with_unit_size(job[0], 8, dtype="bfloat16"))
    assert [row.key for row in prepared.rows] == KEPT["bfloat16_keys"]


@pytest.mark.parametrize("rows_per_unit", [1, 4, 8, 64])
def test_unit_ids_are_kept(job: tuple[JobFile, PreparedJob], rows_per_unit: int):
    request = run_request(with_unit_size(job[0], rows_per_unit), job[1])
    plan = plan_rows(request, read_ledger(request.storage))
    assert list(plan.unit_ids) == KEPT["unit_ids"][str(rows_per_unit)]


def test_references_and_their_units_are_kept(job: tuple[JobFile, PreparedJob]):
    request = run_request(*job)
    references = plan_references(request, plan_rows(request, read_ledger(request.storage)))
    assert references is not None
    assert sorted(row.key for row in references.members()) == KEPT["reference_keys"]
    assert list(references.unit_ids) == KEPT["reference_unit_ids"]


def test_digests_of_lora_files_are_kept(job: tuple[JobFile, PreparedJob]):
    found = {lora.name: lora.digest for row in job[1].rows for lora in row.loras}
    assert found == KEPT["lora_digests"]
