"""What rows share that give the same LoRAs, settings and sizes, learnt from a good one of them.

A row that gives the same of all that many rows share as a good row is right in all that no text,
seed or id decides. So it is right if its own values are, if its prompt has the subjects, and if its
texts fit the text encoder's window, and its key is one more hash.
"""

from dataclasses import replace
from typing import Any

from clora_core.recipe.errors import CompositionError
from clora_core.recipe.key import key_template
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.prompts.chunks import NUM_SPECIAL
from clora_core.recipe.prompts.marked import PlainPrompts
from clora_core.recipe.reading.syntax import PromptSyntax, reads_as_written
from clora_core.recipe.row import Row
from manifests.rows.checked_rows import shared_json
from manifests.rows.text_reader import TextReader, WordReader, text_chunks


class Template:
    """What the rows share, and what is left to be found out of each.

    Args:
        row: A good one of them.
        reader: Of its base model.
        dtype: As in ``RowRules``.

    Attributes:
        syntax: How texts are read.
        shared_json: See ``checked_rows``.
        key: See ``key.KeyTemplate``.
        reader: Of the base model.
        capacity: Tokens of words in one window.
        trigger_characters: As ``chunks`` counts them; None where short texts may be many tokens.
    """

    def __init__(self, row: Row, reader: TextReader | None, *, dtype: str) -> None:
        self._row = row
        self._prompts = PlainPrompts(row.concepts)
        self.syntax: PromptSyntax = row.sampler.prompt_syntax
        self.shared_json = shared_json(row)
        self.key = key_template(row, dtype=dtype).key
        self.reader = reader
        self.capacity = 0 if reader is None else reader.window - NUM_SPECIAL
        self.trigger_characters = self._characters()
        self._tokens: int | None = None

    @staticmethod
    def fits(row: Row) -> bool:
        """Return whether rows like ``row`` can be checked so."""
        syntax = row.sampler.prompt_syntax
        triggers = [lora.trigger or "" for lora in row.concepts]
        return not row.words and all(
            reads_as_written(text, syntax) and reads_as_written(text.strip(), syntax)
            for text in triggers
        )

    @property
    def trigger_tokens(self) -> int | None:
        """Tokens of all triggers; None where tokens of texts do not add up."""
        if self._tokens is None:
            self._tokens = self._counted()
        return None if self._tokens < 0 else self._tokens

    def has_subjects(self, prompt: str, *, stand_apart: bool) -> bool | None:
        """Return whether a prompt that says nothing but its words has the subjects.

        None where it has, and with ``stand_apart`` triggers may join its words.
        """
        spans = self._prompts.spans(prompt)
        if spans is None:
            return False
        return True if not stand_apart or self._prompts.stand_apart(prompt, spans) else None

    def counted(self, prompt: str, negative_prompt: str) -> int | None:
        """Return the number of chunks of a row; None if it has none."""
        if self.reader is None:
            return None
        row = replace(self._row, prompt=prompt, negative_prompt=negative_prompt)
        return text_chunks(row, self.reader)[0]

    def _characters(self) -> int | None:
        texts = [lora.trigger for lora in self._row.concepts if lora.trigger]
        if self.syntax != "plain" or not all(map(str.isascii, texts)):
            return None
        return sum(len(text) + 1 for text in texts)

    def _counted(self) -> int:
        reader: Any = self.reader
        if not isinstance(reader, WordReader):
            return -1
        try:
            METHODS[self._row.method].variants(Mix.of(self._row))
        except CompositionError:
            return -1  # which rows with longer texts have as a problem
        words = [word for text in self._prompts.triggers for word in text.split(" ")]
        tokens = reader.word_tokens(words)
        return -1 if tokens is None else sum(tokens)
