"""Figures on generated pictures: the base model, and each LoRA by itself."""

from collections.abc import Sequence

import numpy as np

from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.captions import PLACE_PHRASES, listed
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import Figure, of_share
from emoji_world.presence import FOUND, PresenceNet, is_doubled, judge
from emoji_world.scenes import SIDE_PX, WIDE_PX

_PLACES = tuple(PLACE_PHRASES)
_BASE_AIMS = {(SIDE_PX, 1): "≥ 0.95", (WIDE_PX, 1): "≥ 0.95", (WIDE_PX, 3): "≥ 0.95"}
_BESIDE = ((SIDE_PX, 0), (SIDE_PX, 1), (SIDE_PX, 2), (WIDE_PX, 1), (WIDE_PX, 2))
_SINGLE_AIMS = {(SIDE_PX, 0): "≥ 0.90", (SIDE_PX, 1): "≥ 0.85", (WIDE_PX, 2): "≥ 0.85"}


def base_figures(renderer: Renderer, net: PresenceNet, *, each: int) -> list[Figure]:
    """Measure prompts with one to three subjects in both widths, ``each`` pictures a noun."""
    figures: list[Figure] = []
    for width, count in ((w, c) for w in (SIDE_PX, WIDE_PX) for c in (1, 2, 3)):
        random = np.random.default_rng([31, count])
        nouns = [_nouns(NOUNS[k % len(NOUNS)], count, random) for k in range(each * len(NOUNS))]
        rows = [
            renderer.row(
                f"{listed([f'a {noun}' for noun in named])} {_phrase(random)}",
                (),
                6000 + k,
                "base",
                width=width,
            )
            for k, named in enumerate(nouns)
        ]
        verdicts = judge(net, renderer.render(rows))
        there = [
            all(verdict.present[noun] > FOUND for noun in named)
            for verdict, named in zip(verdicts, nouns, strict=True)
        ]
        name = f"base, {count} of {count} subjects present, {width} px wide"
        figures.append(of_share(name, there, _BASE_AIMS.get((width, count), "reported")))
        aim = "≤ 0.05" if (width, count) == (WIDE_PX, 3) else ""
        figures.append(of_share("· a subject doubled", [is_doubled(v) for v in verdicts], aim))
    return figures


def _nouns(first: str, count: int, random: np.random.Generator) -> list[str]:
    others = [noun for noun in NOUNS if noun != first]
    return [first, *map(str, random.choice(others, count - 1, replace=False))]


def _phrase(random: np.random.Generator) -> str:
    return PLACE_PHRASES[_PLACES[int(random.integers(len(_PLACES)))]]


def single_figures(
    renderer: Renderer, net: PresenceNet, *, each: int, names: Sequence[str] | None = None
) -> list[Figure]:
    """Measure LoRAs alone and beside subjects without, ``each`` pictures of a LoRA and setting.

    Args:
        renderer: Renders with a catalog that holds the LoRAs.
        net: The judge.
        each: Pictures.
        names: LoRAs of the catalog, named after their instances with anything before; all
            instances if left out.
    """
    named = list(names or [instance.name for instance in INSTANCES])
    known = {name: next(i for i in INSTANCES if name.endswith(i.name)) for name in named}
    seen: dict[str, list[bool]] = {name: [] for name in named}
    figures: list[Figure] = []
    for width, others in _BESIDE:
        random = np.random.default_rng([32, width, others])
        wanted = [name for name in named for _ in range(each)]
        rows = [
            renderer.row(
                f"{listed([f'a {n}' for n in _nouns(known[name].noun, others + 1, random)])} "
                f"{_phrase(random)}",
                [name],
                7000 + k,
                "single",
                width=width,
            )
            for k, name in enumerate(wanted)
        ]
        verdicts = judge(net, renderer.render(rows))
        own = [known[name].name for name in wanted]
        there = [v.present[name] > FOUND for v, name in zip(verdicts, own, strict=True)]
        for name, hit in zip(wanted, there, strict=True):
            seen[name].append(hit)
        figures.append(
            of_share(
                f"single LoRA: instance present, beside {others} without, {width} px wide",
                there,
                _SINGLE_AIMS.get((width, others), ""),
            )
        )
        if net.individuals:
            clearly = [v.identity[name] > FOUND for v, name in zip(verdicts, own, strict=True)]
            figures.append(of_share("· clearly itself", clearly))
    return [*figures, *(of_share(f"· {name}", hits) for name, hits in seen.items())]
