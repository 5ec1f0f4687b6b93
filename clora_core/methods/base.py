"""Method ``base``: the base model without any LoRA, the control of every comparison."""

from clora_core.methods.method import Method, Variant
from clora_core.rows import ComposeRow


def _variants(row: ComposeRow) -> tuple[Variant, ...]:
    nothing = (0.0,) * len(row.loras)
    return (Variant(triggers=frozenset(), weights=nothing, text_weights=nothing),)


METHOD = Method(variants=_variants)
