"""The rows of a sweep: its scenes, each with every setting, seed and method.

Rows of one composition, prompt, settings and seed stand together and differ in the method alone, so
whatever differs between their images is the method's doing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from manifests.prompt_lines import PromptLine
from manifests.row_loras import LoraRequest
from manifests.sweep_spec import SweepSpec

__all__ = ["Scene", "scene_rows"]

MAX_ID_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One composition with one prompt: what all methods make.

    Attributes:
        loras: As the rows ask for them.
        prompt: Written out.
        template: What it was written out from.
        background: What was put into it, or None.
        line: The line of a prompt file that it is from, or None.
    """

    loras: tuple[LoraRequest, ...]
    prompt: str
    template: str
    background: str | None = None
    line: PromptLine | None = field(default=None)


def scene_rows(groups: Sequence[Sequence[Scene]], spec: SweepSpec) -> Iterator[dict[str, Any]]:
    """Yield the rows of all scenes: settings, then seeds, then methods.

    Args:
        groups: The scenes of every composition.
        spec: Says the rest.
    """
    for number, scenes in enumerate(groups):
        for prompt_number, scene in enumerate(scenes):
            name = f"{number:03d}-{'+'.join(r.lora for r in scene.loras)}"[:MAX_ID_CHARACTERS]
            line = scene.line or PromptLine(prompt=scene.prompt)
            seeds = spec.seeds if line.seed is None else (line.seed,)
            for point, settings in enumerate(spec.samplers):
                sampler = {**settings, **line.sampler}
                variant = f"-v{point}" if len(spec.samplers) > 1 else ""
                for seed, method in product(seeds, spec.methods):
                    yield {
                        "row_id": f"{name}-p{prompt_number:02d}{variant}-{method}-{seed}",
                        "prompt": scene.prompt,
                        "loras": _loras_text(scene.loras),
                        "seed": seed,
                        "method": method,
                        "negative_prompt": line.negative_prompt or spec.negative_prompt,
                        "width": line.width or spec.width,
                        "height": line.height or spec.height,
                        "sampler": json.dumps(sampler, sort_keys=True) if sampler else None,
                        "template": scene.template,
                        "background": scene.background,
                    }


def _loras_text(requests: Sequence[LoraRequest]) -> str:
    """Return the LoRAs as a row's text: ``cat;dog:0.8``, or JSON where that cannot say it."""
    plain = all(
        request.subject is None and request.trigger is None and request.region is None
        for request in requests
    )
    if plain:
        return ";".join(
            request.lora if request.weight is None else f"{request.lora}:{request.weight:g}"
            for request in requests
        )
    return json.dumps([request.model_dump(exclude_none=True) for request in requests])
