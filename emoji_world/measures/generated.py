"""Figures on generated pictures: the base model, and each LoRA by itself."""

import numpy as np

from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.captions import PLACE_PHRASES
from emoji_world.measures.renderer import Renderer
from emoji_world.measures.table import Figure, of_share
from emoji_world.presence import PresenceNet, judge

_PLACES = tuple(PLACE_PHRASES)


def base_figures(renderer: Renderer, net: PresenceNet, *, each: int) -> list[Figure]:
    """Measure prompts with one and with two subjects, ``each`` pictures a noun."""
    random = np.random.default_rng(31)
    figures: list[Figure] = []
    for count in (1, 2):
        nouns = [
            [NOUNS[k % len(NOUNS)], *([str(random.choice(NOUNS))] if count == 2 else [])]
            for k in range(each * len(NOUNS))
        ]
        nouns = [pair if len(set(pair)) == count else [pair[0], _next(pair[0])] for pair in nouns]
        places = [_PLACES[int(random.integers(6))] for _ in nouns]
        prompts = [
            " and ".join(f"a {noun}" for noun in pair) + f" {PLACE_PHRASES[place]}"
            for pair, place in zip(nouns, places, strict=True)
        ]
        rows = [renderer.row(prompt, (), 6000 + k, "base") for k, prompt in enumerate(prompts)]
        verdicts = judge(net, renderer.render(rows))
        there = [
            all(verdict.present[noun] > 0.5 for noun in pair)
            for verdict, pair in zip(verdicts, nouns, strict=True)
        ]
        name = "base, one subject: present" if count == 1 else "base, two subjects: both present"
        figures.append(of_share(name, there, "≥ 0.95" if count == 1 else "reported"))
    return figures


def _next(noun: str) -> str:
    return NOUNS[(NOUNS.index(noun) + 1) % len(NOUNS)]


def single_figures(renderer: Renderer, net: PresenceNet, *, each: int) -> list[Figure]:
    """Measure every LoRA alone and beside a subject without LoRA, ``each`` pictures."""
    random = np.random.default_rng(32)
    rows, names, places, crowded = [], [], [], []
    for index, instance in enumerate(INSTANCES):
        for k in range(2 * each):
            place = _PLACES[int(random.integers(6))]
            other = str(random.choice([noun for noun in NOUNS if noun != instance.noun]))
            second = f" and a {other}" if k % 2 else ""
            prompt = f"a {instance.noun}{second} {PLACE_PHRASES[place]}"
            rows.append(renderer.row(prompt, [instance.name], 7000 + 50 * index + k, "single"))
            names.append(instance.name)
            places.append(place)
            crowded.append(bool(k % 2))
    verdicts = judge(net, renderer.render(rows))
    seen = np.array([v.present[name] > 0.5 for v, name in zip(verdicts, names, strict=True)])
    right = [v.place == place for v, place in zip(verdicts, places, strict=True)]
    beside = np.array(crowded)
    return [
        of_share("single LoRA: instance present, alone", seen[~beside], "≥ 0.90"),
        of_share("single LoRA: instance present, beside a subject without", seen[beside], "≥ 0.85"),
        of_share("single LoRA: place follows the prompt", right, "≥ 0.90"),
        *(of_share(f"· {name}", seen[np.array(names) == name]) for name in dict.fromkeys(names)),
    ]
