"""``clora fuse``: fused adapters as files for other tools.

What a job's rows are sampled with is taken from where the job keeps it, or made here; or LoRAs of
the job's catalog are named and fused as a row with them would be.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.errors import CloraError
from clora_core.recipe.fusion import Fusion, fusion_of
from clora_core.recipe.methods import METHODS
from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.job.inputs import PreparedJob, job_lora_catalog, prepare
from jobs.job.job_file import JobFile, load_job
from jobs.job.local_host import fused_content, local_host
from jobs.job.run_request import run_request
from jobs.notes import note
from manifests.tables.readers import RawRow
from manifests.text.problems import InputError, Problem
from pipelines.stages.fused_work import References
from pipelines.storage.storage import open_storage

XL_WIDTH = 2048
"""Of the text that Stable Diffusion XL's cross-attention sees."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@command()
def fuse(
    path: Path,
    loras: Sequence[str] = (),
    *,
    out: Path,
    method: str | None = None,
    naming: str = "kohya",
    half: bool = False,
) -> int:
    """Write fused adapters.

    Args:
        path: The job: base model, catalog, settings, and rows if no LoRAs are named.
        loras: Names of its catalog, ``NAME`` or ``NAME:WEIGHT``; none for what its rows need.
        out: Folder of the files.
        method: Whose recipe fuses the named LoRAs; the job's if None.
        naming: ``kohya`` or ``peft``, whose spelling diffusers writes.
        half: Write float16 instead of float32.

    Returns:
        The exit code: 0 all are written, 1 one could not be made, 2 bad input.
    """
    job = load_job(path)
    prepared = _prepared(job, path, loras, method)
    fusions = _fusions(job, prepared, path)
    request = run_request(job, prepared)
    dirs = {digest: model.place for digest, model in prepared.models_by_digest.items()}
    host = local_host(dirs, job.resources)
    references = References(storage=request.references_storage)
    num_failed = 0
    for number, fusion in enumerate(fusions, start=1):
        note(f"{number:,} of {len(fusions):,}: {fusion.adapter_name}")
        facts = prepared.models_by_digest[fusion.base_model_digest].facts
        is_xl = facts.cross_attention_width == XL_WIDTH
        try:
            content, was_there = fused_content(fusion, request.fused_storage, references, host)
            file = _spelled(content, fusion, naming=naming, half=half, is_xl=is_xl)
            open_storage(str(out.absolute())).put(_file_name(fusion), file)
        except CloraError as error:
            note(f"not made: {error}")
            num_failed += 1
            continue
        source = "as its rows have it" if was_there else "fused here"
        print(f"{out / _file_name(fusion)}: {fusion.adapter_name}, {source}")
    return SOME_FAILED if num_failed else ALL_MADE


def _prepared(job: JobFile, path: Path, loras: Sequence[str], method: str | None) -> PreparedJob:
    if not loras:
        if method is not None:
            raise _refused(
                "--method",
                f"{method!r} is for LoRAs that are named; without names it is each row's own. Name "
                "LoRAs after the job, or leave it out",
            )
        return prepare(job, place=str(path))
    wanted = method or job.method
    known = METHODS.get(wanted)
    if known is None or known.fused_by is None:
        fusing = ", ".join(name for name, value in METHODS.items() if value.fused_by is not None)
        raise _refused("--method", f"{wanted!r} fuses nothing; name one of {fusing}")
    return prepare(job, place=str(path), raw_rows=[_row(job, loras, wanted)])


def _row(job: JobFile, loras: Sequence[str], method: str) -> RawRow:
    """Return a row with the named LoRAs, whose prompt has their subjects."""
    catalog = job_lora_catalog(job.catalog)
    uses: list[dict[str, object]] = []
    for text in loras:
        name, _, weight = text.partition(":")
        try:
            uses.append({"lora": name, **({"weight": float(weight)} if weight else {})})
        except ValueError:
            raise _refused("LORA", f"{text!r} is none of NAME and NAME:WEIGHT") from None
    subjects = [
        entry.subject
        for use in uses
        if (entry := catalog.entries.get(str(use["lora"]))) is not None
    ]
    styles = [name for name, entry in catalog.entries.items() if entry.kind == "style"]
    named = [str(use["lora"]) for use in uses if use["lora"] in styles]
    if named:
        raise _refused(
            "LORA",
            f"{', '.join(named)}: styles are not fused, they act beside an adapter with weights of "
            "their own; leave them out here and load them beside it",
        )
    prompt = " and ".join(f"a {subject}" for subject in subjects if subject) or "a picture"
    values = {"prompt": prompt, "loras": uses, "seed": 0, "method": method}
    return RawRow(place="command line", line=1, values=values)


def _refused(field: str, problem: str) -> InputError:
    return InputError([Problem(place="command line", field=field, problem=problem)])


def _fusions(job: JobFile, prepared: PreparedJob, path: Path) -> list[Fusion]:
    found: dict[str, Fusion] = {}
    for row, _ in prepared.rows.kinds():
        fusion = fusion_of(row, dtype=job.resources.dtype)
        if fusion is not None:
            found.setdefault(fusion.key, fusion)
    if not found:
        raise NothingToFuseError(
            f"{path} has no rows of a method that fuses; name LoRAs of its catalog after it, and "
            "--method"
        )
    return list(found.values())


class NothingToFuseError(CloraError):
    """No row needs a fused adapter."""


def _spelled(content: bytes, fusion: Fusion, *, naming: str, half: bool, is_xl: bool) -> bytes:
    import torch

    from clora_core.fuse.adapter_file import decode_adapter, encode_adapter

    adapter, facts = decode_adapter(content)
    return encode_adapter(
        adapter,
        facts,
        naming="kohya" if naming == "kohya" else "peft",
        dtype=torch.float16 if half else torch.float32,
        is_xl=is_xl,
        title=fusion.adapter_name,
    )


def _file_name(fusion: Fusion) -> str:
    names = "+".join(lora.name for lora in fusion.loras)
    return f"{_UNSAFE.sub('-', f'{fusion.method}-{names}')[:120]}-{fusion.key[:8]}.safetensors"
