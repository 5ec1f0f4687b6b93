"""The tokenizer of a base model folder, loaded when a row needs it, without torch."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from clora_core.recipe.prompts.marked import Span
from manifests.weights.model_config import BaseModelProblem, model_config

_REMEMBERED = 65_536


class FolderTextReader:
    """Reads texts as the base model in a folder would; see ``manifests.rows.text_reader``.

    Most texts are so short that their tokens need not be counted, so the tokenizer, a second of
    imports, is loaded for the first that is not.
    """

    def __init__(self, folder: Path, *, window: int, num_layers: int, tokenizer_class: str) -> None:
        self.window = window
        self.num_layers = num_layers
        self._folder = folder
        self._tokenizer_class = tokenizer_class
        self.tokenize = lru_cache(_REMEMBERED)(self._tokenize)

    @cached_property
    def _tokenizer(self) -> Any:
        import transformers

        try:
            return getattr(transformers, self._tokenizer_class).from_pretrained(self._folder)
        except Exception as error:  # a damaged tokenizer makes the library raise nearly anything
            raise BaseModelProblem(
                f"{self._folder} holds no tokenizer that can be loaded ({error}); save the base "
                "model with diffusers again"
            ) from error

    def _tokenize(self, text: str) -> Sequence[Span]:
        found = self._tokenizer(text, return_offsets_mapping=True, truncation=False, verbose=False)
        return [(start, end) for start, end in found["offset_mapping"]][1:-1]


def text_reader(folder: str) -> FolderTextReader | None:
    """Return what reads texts as the base model in ``folder``; None if its files don't say how."""
    root = Path(folder)
    if not folder or not (root / "text_encoder/config.json").is_file():
        return None
    index = model_config(root, "model_index.json")
    encoders = [
        model_config(root, f"{name}/config.json")
        for name in ("text_encoder", "text_encoder_2")
        if (root / name / "config.json").is_file()
    ]
    try:
        windows = [int(config["max_position_embeddings"]) for config in encoders]
        layers = [int(config["num_hidden_layers"]) for config in encoders]
        tokenizer_class = str(index["tokenizer"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return FolderTextReader(
        root / "tokenizer",
        window=min(windows),
        num_layers=min(layers),
        tokenizer_class=tokenizer_class,
    )
