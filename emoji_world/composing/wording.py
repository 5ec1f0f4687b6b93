"""Captions of thousands of scenes at once: what ``emoji_world.captions`` says, as token ids.

A caption is a row of slots, most of them empty: opening, then for each subject a join, "a", a
strange word, a trigger and the noun, then the place. Empty slots are squeezed out at the end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import INSTANCES, NOUNS
from emoji_world.captions import ADJECTIVES, JOINS, OPENINGS, PLACE_PHRASES, TRIGGERS
from emoji_world.tokenizer import MAX_POSITIONS

_NOTHING = -1
_STRANGE_WORDS = 4000
_STRANGE_LETTERS = (3, 7)
_KNOWN_ADJECTIVE = 0.4
_PLACE_NAMED = 0.85


@dataclass(frozen=True, kw_only=True)
class Words:
    """Token ids of every phrase, -1 where a phrase is shorter than others.

    Attributes:
        start: Id before every caption.
        end: Id after it, as often as there is room.
        article: Id of "a".
        comma: Id of the comma.
        openings: [opening, 3].
        joins: [join, 2].
        strange: Unknown words, then adjectives, [word, 6].
        adjectives: How many of ``strange`` are adjectives.
        triggers: All of them, reserved ones too, [trigger].
        own: Of each instance, [instance].
        nouns: [noun].
        places: [place, 3].
    """

    start: int
    end: int
    article: int
    comma: int
    openings: Tensor
    joins: Tensor
    strange: Tensor
    adjectives: int
    triggers: Tensor
    own: Tensor
    nouns: Tensor
    places: Tensor


def words_of(tokenizer: Any, device: torch.device, *, seed: int = 0) -> Words:
    """Return the phrases' ids; the unknown words are drawn from the seed."""
    random = np.random.default_rng(seed)

    def ids(phrase: str) -> list[int]:
        return list(tokenizer(phrase).input_ids[1:-1])

    def table(phrases: list[str], width: int) -> Tensor:
        rows = [ids(phrase)[:width] for phrase in phrases]
        return torch.tensor(
            [row + [_NOTHING] * (width - len(row)) for row in rows], device=device
        ).view(len(rows), width)

    def unknown() -> str:
        letters = random.integers(ord("a"), ord("z") + 1, random.integers(*_STRANGE_LETTERS))
        return "".join(map(chr, letters))

    return Words(
        start=tokenizer.bos_token_id,
        end=tokenizer.pad_token_id,
        article=ids("a")[0],
        comma=ids(",")[0],
        openings=table(list(OPENINGS), 3),
        joins=table(list(JOINS), 2),
        strange=table([*(unknown() for _ in range(_STRANGE_WORDS)), *ADJECTIVES], 6),
        adjectives=len(ADJECTIVES),
        triggers=table(list(TRIGGERS), 1)[:, 0],
        own=table([instance.trigger for instance in INSTANCES], 1)[:, 0],
        nouns=table(list(NOUNS), 1)[:, 0],
        places=table([PLACE_PHRASES[place] for place in PLACES], 3),
    )


def captions_of(
    nouns: Tensor, instances: Tensor, places: Tensor, words: Words, *, strange: float
) -> tuple[Tensor, Tensor]:
    """Return token ids and the subject of each token counted from 1, or 0; both [n, 24].

    Args:
        nouns: Index of each subject's noun, -1 for nobody, [n, 3]; those there come first.
        instances: Index of its instance, -1 for none, [n, 3].
        places: Index of each place, [n].
        words: The phrases.
        strange: Chance of triggers nobody trained; unknown words come half as often.
    """
    size, most = nouns.shape
    device = nouns.device
    counts = (nouns >= 0).sum(1)
    late = torch.arange(most, device=device) >= counts[:, None]
    order = (torch.rand(size, most, device=device) + 9 * late).argsort(1)
    blank = torch.full((size, 1), _NOTHING, device=device)

    def some(rows: Tensor) -> Tensor:
        return rows[torch.randint(len(rows), (size,), device=device)]

    def perhaps(chance: float) -> Tensor:
        return torch.rand(size, 1, device=device) < chance

    joins = some(words.joins)
    comma = torch.cat([blank * 0 + words.comma, blank], 1)
    parts, owners = [some(words.openings)], [torch.zeros(size, 3, device=device)]
    for position in range(most):
        index = order[:, position]
        there = (counts > position)[:, None]
        last = (counts == position + 1)[:, None]
        noun = nouns.gather(1, index[:, None]).clamp(min=0)
        instance = instances.gather(1, index[:, None])
        known = len(words.strange) - 1 - torch.randint(words.adjectives, (size,), device=device)
        foreign = torch.randint(len(words.strange) - words.adjectives, (size,), device=device)
        odd = words.strange[torch.where(perhaps(_KNOWN_ADJECTIVE)[:, 0], known, foreign)]
        reserved = torch.where(perhaps(strange), some(words.triggers)[:, None], blank)
        trigger = torch.where(instance >= 0, words.own[instance.clamp(min=0)], reserved)
        said = [
            torch.where(last, joins, comma) if position else torch.cat([blank, blank], 1),
            blank * 0 + words.article,
            torch.where(perhaps(strange / 2), odd, _NOTHING),
            trigger,
            words.nouns[noun],
        ]
        parts.append(torch.where(there, torch.cat(said, 1), _NOTHING))
        number = (index[:, None] + 1) * there
        owners.append(torch.cat([torch.zeros(size, 9, device=device), number, number], 1))
    parts.append(torch.where(perhaps(_PLACE_NAMED), words.places[places], _NOTHING))
    owners.append(torch.zeros(size, 3, device=device))
    return _squeezed(torch.cat(parts, 1), torch.cat(owners, 1), words)


def _squeezed(slots: Tensor, owners: Tensor, words: Words) -> tuple[Tensor, Tensor]:
    """Return the slots that say something, between start and end, and their owners."""
    empty = slots == _NOTHING
    room = MAX_POSITIONS - 2
    order = empty.to(torch.uint8).argsort(dim=1, stable=True)[:, :room]
    kept = slots.gather(1, order)
    said = kept != _NOTHING
    tokens = torch.full((len(slots), MAX_POSITIONS), words.end, device=slots.device)
    tokens[:, 0] = words.start
    tokens[:, 1:-1] = torch.where(said, kept, words.end)
    subjects = torch.zeros_like(tokens)
    subjects[:, 1:-1] = owners.gather(1, order).long() * said
    return tokens.short(), subjects.byte()
