"""Pools of scenes drawn one by one, as ``emoji_world.scenes`` draws them, to take figures on.

Scene number i of a pool is drawn from ``default_rng([seed, i])``, so a pool is a function of its
seed however many processes drew it.
"""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoji_world.artwork import Sprites, load_sprites
from emoji_world.backgrounds import PLACES
from emoji_world.bestiary import INSTANCES, LABELS, NOUNS
from emoji_world.captions import caption_of
from emoji_world.scenes import (
    CELL_PX,
    MAP_SIDE,
    SIDE_PX,
    Scene,
    Subject,
    draw_scene,
    of_class,
    of_instance,
    random_subjects,
)
from emoji_world.tokenizer import MAX_POSITIONS

MAX_SUBJECTS = 3
Random = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Scenes as arrays; row i of each array belongs to scene i.

    Attributes:
        images: uint8 [n, 64, width, 3].
        boxes: float32 [n, 3, 4], pixels; zeros where there is no subject.
        masks: Cover of each subject in 1/255, uint8 [n, 3, 16, width / 4].
        labels: Index into ``LABELS`` of each subject's noun and instance, -1 for none,
            int16 [n, 3, 2].
        places: Index into ``PLACES``, int16 [n].
        tokens: Token ids of the captions, int16 [n, captions, 24].
        token_subjects: Subject of each token counted from 1, or 0; uint8 [n, captions, 24].
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.uint8]
    labels: NDArray[np.int16]
    places: NDArray[np.int16]
    tokens: NDArray[np.int16]
    token_subjects: NDArray[np.uint8]


def base_subjects(random: Random) -> list[Subject]:
    """Return subjects of classes only: 35 % alone, 53 % two, 12 % three."""
    return random_subjects(int(random.choice([1, 2, 3], p=[0.35, 0.53, 0.12])), random)


def any_subjects(random: Random) -> list[Subject]:
    """Return subjects among which instances are as common as classes: for the judges."""
    count = int(random.choice([1, 2, 3], p=[0.4, 0.5, 0.1]))
    subjects: list[Subject] = []
    for noun in random.choice(NOUNS, count, replace=False):
        own = [instance for instance in INSTANCES if instance.noun == noun]
        draw = random.random()
        if own and draw < 0.55:
            subjects.append(of_instance(own[random.integers(len(own))]))
        else:
            subject = of_class(str(noun), random)
            # Near misses: a class picture in some other colour is still no instance.
            if draw > 0.9:
                tint = tuple(random.uniform(0.15, 0.95, 3).tolist())
                subject = Subject(noun=subject.noun, sprite=subject.sprite, tint=tint)
            subjects.append(subject)
    return subjects


def draw_pool(
    choose: Callable[[Random], list[Subject]],
    size: int,
    *,
    seed: int,
    cache: Path,
    tokenizer: Path | None = None,
    captions: int = 0,
    strange: float = 0.2,
    width_px: int = SIDE_PX,
) -> Pool:
    """Draw a pool on all cores.

    Args:
        choose: Picks the subjects of a scene; must be picklable.
        size: Number of scenes.
        seed: Names the pool.
        cache: Folder of the artwork.
        tokenizer: Folder of the tokenizer, needed if there are captions.
        captions: Captions a scene.
        strange: Chance of triggers nobody trained; unknown words come half as often.
        width_px: Width of the pictures.
    """
    load_sprites(cache)
    chunk = 512
    jobs = [(start, min(start + chunk, size)) for start in range(0, size, chunk)]
    work = partial(
        _draw_chunk,
        choose=choose,
        seed=seed,
        cache=cache,
        tokenizer=tokenizer,
        captions=captions,
        strange=strange,
        width_px=width_px,
    )
    processes = int(os.environ.get("EMOJI_WORLD_PROCESSES", os.cpu_count() or 1))
    if processes > 1 and len(jobs) > 1:
        with _one_thread_each(), multiprocessing.get_context("forkserver").Pool(processes) as pool:
            parts = pool.map(work, jobs, chunksize=1)
    else:
        parts = [work(job) for job in jobs]
    return Pool(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Pool)}
    )


@contextmanager
def _one_thread_each() -> Generator[None]:
    """Give processes started inside one thread each, so that together they use each core once."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


@lru_cache(maxsize=1)
def _sprites(cache: Path) -> Sprites:
    return load_sprites(cache)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


@lru_cache(maxsize=100_000)
def _word_ids(folder: Path, word: str) -> tuple[int, ...]:
    return tuple(_tokenizer(folder)(word).input_ids[1:-1])


def encode_caption(
    words: Sequence[str], subjects: Sequence[int], tokenizer: Path
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return token ids [24] and the subject of each token [24] of a caption's words."""
    loaded = _tokenizer(tokenizer)
    tokens = np.full(MAX_POSITIONS, loaded.pad_token_id, np.int16)
    owners = np.zeros(MAX_POSITIONS, np.uint8)
    tokens[0] = loaded.bos_token_id
    at = 1
    for word, subject in zip(words, subjects, strict=True):
        for token in _word_ids(tokenizer, word):
            if at < MAX_POSITIONS - 1:
                tokens[at], owners[at] = token, subject
                at += 1
    return tokens, owners


def _draw_chunk(
    span: tuple[int, int],
    *,
    choose: Callable[[Random], list[Subject]],
    seed: int,
    cache: Path,
    tokenizer: Path | None,
    captions: int,
    strange: float,
    width_px: int,
) -> Pool:
    sprites = _sprites(cache)
    size = span[1] - span[0]
    pool = Pool(
        images=np.zeros((size, SIDE_PX, width_px, 3), np.uint8),
        boxes=np.zeros((size, MAX_SUBJECTS, 4), np.float32),
        masks=np.zeros((size, MAX_SUBJECTS, MAP_SIDE, width_px // CELL_PX), np.uint8),
        labels=np.full((size, MAX_SUBJECTS, 2), -1, np.int16),
        places=np.zeros(size, np.int16),
        tokens=np.zeros((size, captions, MAX_POSITIONS), np.int16),
        token_subjects=np.zeros((size, captions, MAX_POSITIONS), np.uint8),
    )
    for row in range(size):
        random = np.random.default_rng([seed, span[0] + row])
        scene = draw_scene(choose(random), sprites, random, width_px=width_px)
        count = len(scene.subjects)
        pool.images[row] = scene.image
        pool.boxes[row, :count] = scene.boxes
        pool.masks[row, :count] = (scene.masks * 255).astype(np.uint8)
        pool.labels[row, :count] = [label_indices(subject) for subject in scene.subjects]
        pool.places[row] = PLACES.index(scene.place)
        for index in range(captions):
            _write_caption(pool, row, index, scene, random, tokenizer, strange)
    return pool


def _write_caption(
    pool: Pool,
    row: int,
    index: int,
    scene: Scene,
    random: Random,
    tokenizer: Path | None,
    strange: float,
) -> None:
    if tokenizer is None:
        raise ValueError("captions need the folder of a tokenizer, got None")
    caption = caption_of(scene, random, strange_triggers=strange, strange_words=strange / 2)
    pool.tokens[row, index], pool.token_subjects[row, index] = encode_caption(
        caption.words, caption.subjects, tokenizer
    )


def label_indices(subject: Subject) -> tuple[int, int]:
    """Return the indices into ``LABELS`` of a subject's noun and of its instance or -1."""
    noun = LABELS.index(subject.noun)
    return noun, LABELS.index(subject.instance) if subject.instance else -1
