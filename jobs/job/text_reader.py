"""The tokenizer of a base model folder, loaded when a row needs it, without torch."""

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from clora_core.recipe.prompts.marked import Span
from manifests.weights.model_config import BaseModelProblem, model_config

_REMEMBERED = 65_536
_NO_LIMIT = 10**30


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
            kind = getattr(transformers, self._tokenizer_class)
            tokenizer = kind.from_pretrained(self._folder).backend_tokenizer
        except Exception as error:  # a damaged tokenizer makes the library raise nearly anything
            raise BaseModelProblem(
                f"{self._folder} holds no tokenizer that can be loaded ({error}); save the base "
                "model with diffusers again"
            ) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _tokenize(self, text: str) -> Sequence[Span]:
        return self._tokenizer.encode(text).offsets[1:-1]


def text_reader(folder: str) -> FolderTextReader | None:
    """Return what reads texts as the base model in ``folder``; None if it has no text encoder.

    Raises:
        BaseModelProblem: Its files cannot be read.
    """
    root = Path(folder)
    if not folder or not (root / "text_encoder/config.json").is_file():
        return None
    index = model_config(root, "model_index.json")
    encoders = _configs(root, "text_encoder", "text_encoder_2", name="config.json")
    tokenizers = _configs(root, "tokenizer", "tokenizer_2", name="tokenizer_config.json")
    named: Any = index.get("tokenizer")
    return FolderTextReader(
        root / "tokenizer",
        # What transformers takes where a file is silent.
        window=min(
            *(_whole(each, "max_position_embeddings", 77) for each in encoders),
            *(_whole(each, "model_max_length", _NO_LIMIT) for each in tokenizers),
            _NO_LIMIT,
        ),
        num_layers=min(_whole(each, "num_hidden_layers", 12) for each in encoders),
        tokenizer_class=named[1] if isinstance(named, list) else "CLIPTokenizer",
    )


def _configs(root: Path, *folders: str, name: str) -> list[Mapping[str, Any]]:
    return [
        model_config(root, f"{folder}/{name}")
        for folder in folders
        if (root / folder / name).is_file()
    ]


def _whole(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    return int(value) if isinstance(value, int | float) and value >= 1 else default
