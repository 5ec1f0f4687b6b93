"""Method ``clora`` and its ablations (arXiv 2403.19776).

A base variant without concept LoRAs and one variant per concept with its LoRA and trigger. The
contrastive loss over their attention maps moves the latents; masks from the same maps say which
variant's prediction counts where. Styles are part of every variant, the base one too.
"""

from dataclasses import replace

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    concepts: tuple[int | None, ...] = (None, *range(mix.num_concepts))
    return tuple(
        Variant(
            triggers=frozenset() if concept is None else frozenset({concept}),
            shares=mix.only(concept),
            text_shares=mix.only(concept),
            concept=concept,
        )
        for concept in concepts
    )


METHOD = Method(name="clora", make_variants=_variants, min_concepts=1, guided=True, masked=True)
WITHOUT_UPDATE = replace(METHOD, name="clora-no-update", guided=False)
WITHOUT_MASK = replace(METHOD, name="clora-no-mask", masked=False)
WITHOUT_EITHER = replace(METHOD, name="clora-neither", guided=False, masked=False)
