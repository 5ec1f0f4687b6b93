"""Method ``composite``: one pass per concept LoRA, predictions averaged (arXiv 2402.16843).

The text is encoded once, with all LoRAs active and every trigger in the prompt.
"""

from clora_core.methods.method import Method, Variant, all_weights, need_concepts, only
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    num_concepts = need_concepts(row, at_least=1)
    return tuple(
        Variant(
            triggers=frozenset(range(num_concepts)),
            weights=only(row, concept),
            text_weights=all_weights(row),
        )
        for concept in range(num_concepts)
    )


METHOD = Method(variants=_variants)
