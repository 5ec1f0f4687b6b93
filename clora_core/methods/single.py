"""Method ``single``: one concept LoRA alone, as its references are made; styles stay on."""

from clora_core.methods.method import Method, Variant, need_concepts, only
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    need_concepts(row, at_least=1, at_most=1)
    weights = only(row, 0)
    return (Variant(triggers=frozenset({0}), weights=weights, text_weights=weights),)


METHOD = Method(variants=_variants)
