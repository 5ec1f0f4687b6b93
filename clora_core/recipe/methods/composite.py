"""Method ``composite``: one pass per concept LoRA, predictions averaged (arXiv 2402.16843).

The text is encoded once, with all LoRAs active and every trigger in the prompt.
"""

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    return tuple(
        Variant(
            triggers=frozenset(range(mix.num_concepts)),
            shares=mix.only(concept),
            text_shares=mix.everything(),
        )
        for concept in range(mix.num_concepts)
    )


METHOD = Method(name="composite", make_variants=_variants, min_concepts=1)
