"""A LoRA as what the bank needs: for every layer it changes, an update; mostly two factors."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.update import Update
from clora_core.lora.word_vectors import WordVectors


@dataclass(frozen=True)
class LoraFactors:
    """A whole LoRA: component (``unet``, ``text_encoder`` …) to layer name to update.

    Attributes:
        components: Its updates.
        words: Embeddings that it brings along, in the order of its file.
    """

    components: Mapping[str, Mapping[str, Update]]
    words: tuple[WordVectors, ...] = ()

    def of(self, component: str) -> Mapping[str, Update]:
        """Return the updates of one component; empty if the LoRA leaves it alone."""
        return self.components.get(component, {})

    def to(self, device: torch.device) -> "LoraFactors":
        """Return the LoRA on ``device``, in the numbers of its file."""
        return LoraFactors(
            {
                component: {layer: update.to(device) for layer, update in updates.items()}
                for component, updates in self.components.items()
            },
            words=tuple(word.to(device) for word in self.words),
        )

    def as_factors(self) -> dict[tuple[str, str], Factor]:
        """Return all layers by component and name, where each is a product of two factors.

        Raises:
            TypeError: One is of another kind.
        """
        found: dict[tuple[str, str], Factor] = {}
        for component, updates in self.components.items():
            for layer, update in updates.items():
                if not isinstance(update, Factor):
                    raise TypeError(f"{component}.{layer} is no product of two factors")
                found[component, layer] = update
        return found

    @property
    def num_bytes(self) -> int:
        """Memory of all updates and vectors."""
        return sum(word.num_bytes for word in self.words) + sum(
            update.num_bytes for updates in self.components.values() for update in updates.values()
        )
