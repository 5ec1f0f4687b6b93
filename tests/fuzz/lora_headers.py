"""LoRA files with damaged headers: each is a report or a sentence, and never anything else.

What is accepted must open in safetensors with the same names and shapes: a file that passes here
and fails in the run would cost a GPU.
"""

import json
import random
from collections import Counter
from pathlib import Path

from input_kit import raw_bytes
from safetensors import safe_open

from clora_core.recipe.errors import LoraFileError
from fuzz.header_seeds import METADATA, seeds
from fuzz.mutations import damaged, junk, mutated
from manifests.loras.about.catalog_entry import catalog_entry, catalog_name
from manifests.loras.about.report import lora_report
from manifests.weights.header import read_header

SEEDS = seeds()


def case(number: int, seed: int) -> bytes:
    """Return the damaged file of one case."""
    source = random.Random(f"{seed}/{number}")
    header, data = source.choice(SEEDS)
    how = source.randrange(10)
    if how < 6:
        for _ in range(source.randrange(1, 4)):
            header = mutated(header, source)
        text = json.dumps(header, ensure_ascii=source.random() < 0.5)
        return raw_bytes(text.encode("utf-8", "surrogatepass"), data)
    whole = raw_bytes(json.dumps(header).encode(), data)
    if how < 9:
        return damaged(whole, source)
    metadata = {"__metadata__": {name: str(junk(source)) for name in METADATA}}
    text = json.dumps(metadata | {k: v for k, v in header.items() if k != "__metadata__"})
    return raw_bytes(text.encode(), data)


def look(path: Path) -> str:
    """Return what became of the file: ``refused`` or ``accepted``.

    Raises:
        AssertionError: A refusal is no sentence, or what was accepted cannot be opened.
    """
    try:
        report = lora_report(path)
    except LoraFileError as problem:
        sentence = str(problem)
        assert sentence.startswith(str(path)), sentence
        assert len(sentence) < 1000, sentence
        assert sentence.isprintable(), sentence
        return "refused"
    entry = catalog_entry(report, name=catalog_name(report))
    assert entry.isprintable() or entry.replace("\n", "").isprintable(), entry
    with safe_open(path, framework="numpy") as file:
        header = read_header(path)
        opened = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {n: (each.get_dtype(), tuple(each.get_shape())) for n, each in opened.items()}
        assert shapes == {n: (entry.dtype, entry.shape) for n, entry in header.tensors.items()}
        assert shapes
        assert (file.metadata() or {}) == dict(header.metadata)
    return "accepted"


def fuzz_headers(first: int, num_cases: int, *, seed: int, folder: Path) -> Counter[str]:
    """Return how many of the cases ended in which way.

    Raises:
        AssertionError: Naming the case, if one ended in another way.
    """
    counts: Counter[str] = Counter()
    path = folder / "case.safetensors"
    for number in range(first, first + num_cases):
        content = case(number, seed)
        path.write_bytes(content)
        try:
            counts[look(path)] += 1
        except Exception as error:
            raise AssertionError(f"header case {number} of seed {seed}: {content!r}") from error
    return counts
