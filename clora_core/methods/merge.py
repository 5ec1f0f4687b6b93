"""Method ``merge``: the sum of all deltas in one pass, one prompt with every trigger."""

from clora_core.methods.method import Method, Variant, all_weights, need_concepts
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    num_concepts = need_concepts(row, at_least=0)
    weights = all_weights(row)
    triggers = frozenset(range(num_concepts))
    return (Variant(triggers=triggers, weights=weights, text_weights=weights),)


METHOD = Method(variants=_variants)
