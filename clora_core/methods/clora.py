"""Method ``clora`` and its ablations (arXiv 2403.19776).

A base variant without concept LoRAs and one variant per concept with its LoRA and trigger. The
contrastive loss over their attention maps moves the latents; masks from the same maps say which
variant's prediction counts where. Styles are part of every variant, the base one too.
"""

from dataclasses import replace

from clora_core.methods.method import Method, Variant, need_concepts, only
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    num_concepts = need_concepts(row, at_least=1)
    concepts: tuple[int | None, ...] = (None, *range(num_concepts))
    return tuple(
        Variant(
            triggers=frozenset() if concept is None else frozenset({concept}),
            weights=only(row, concept),
            text_weights=only(row, concept),
            concept=concept,
        )
        for concept in concepts
    )


METHOD = Method(variants=_variants, guided=True, masked=True)
WITHOUT_UPDATE = replace(METHOD, guided=False)
WITHOUT_MASK = replace(METHOD, masked=False)
WITHOUT_EITHER = replace(METHOD, guided=False, masked=False)
