"""The tokenizer of a base model folder, loaded when a row needs it, without torch."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from clora_core.recipe.prompts.marked import Span
from manifests.weights.model_config import BaseModelProblem, model_config

_REMEMBERED = 1024
_REMEMBERED_SPANS = 8192
_REMEMBERED_WORDS = 65_536
_AT_ONCE = 256
"""Words that are read at once; the tokenizer's answer takes kilobytes for each."""
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
        self._word_tokens: dict[str, int] = {}
        self._remember()

    def _remember(self) -> None:
        self.tokenize = lru_cache(_REMEMBERED)(self._tokenize)
        self._word_spans = lru_cache(_REMEMBERED_SPANS)(self._spans)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the tokenizer and what was read with it behind: it is loaded where it is needed."""
        state = {**self.__dict__, "_word_tokens": {}}
        for name in ("tokenize", "_word_spans", "_tokenizer", "_adds_up"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin to remember anew."""
        self.__dict__.update(state)
        self._remember()

    def word_tokens(self, words: Sequence[str]) -> Sequence[int] | None:
        """Return how many tokens each word is; None if a text may have others than its words.

        Args:
            words: Without spaces.
        """
        if not self._adds_up:
            return None
        known = self._word_tokens
        new = [word for word in dict.fromkeys(words) if word not in known]
        if len(known) + len(new) > _REMEMBERED_WORDS:
            known.clear()
            new = list(dict.fromkeys(words))
        for some in (new[place : place + _AT_ONCE] for place in range(0, len(new), _AT_ONCE)):
            read = self._tokenizer.encode_batch_fast(some, add_special_tokens=False)
            known.update(zip(some, map(len, read), strict=True))
        return [known[word] for word in words]

    @cached_property
    def _adds_up(self) -> bool:
        return spaces_part_tokens(json.loads(self._tokenizer.to_str()))

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
        if not self._adds_up:
            return self._spans(text)
        spans: list[Span] = []
        start = 0
        for word in text.split(" "):
            spans += [(start + one, start + end) for one, end in self._word_spans(word)]
            start += len(word) + 1
        return spans

    def _spans(self, text: str) -> Sequence[Span]:
        return self._tokenizer.encode(text).offsets[1:-1]


def spaces_part_tokens(tokenizer: Mapping[str, Any]) -> bool:
    """Return whether a text has the tokens of the words between its spaces, and no others.

    That is so where a tokenizer folds each word by itself and takes spaces out before it looks for
    tokens, as all of CLIP do.

    Args:
        tokenizer: As the library ``tokenizers`` writes it.
    """
    folds, splits, model = (tokenizer[name] for name in ("normalizer", "pre_tokenizer", "model"))
    added: list[Mapping[str, Any]] = tokenizer["added_tokens"]
    return (
        folds == _CLIP_FOLDS
        and splits == _CLIP_SPLITS
        and model["type"] == "BPE"
        and not model.get("dropout")
        and not any(" " in each["content"] or each["lstrip"] or each["rstrip"] for each in added)
        and not any(each["single_word"] for each in added)
    )


_CLIP_FOLDS = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}
_CLIP_SPLITS = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {
                "Regex": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
                r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
            },
            "behavior": "Removed",
            "invert": True,
        },
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}


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
