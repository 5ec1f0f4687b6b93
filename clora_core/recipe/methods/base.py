"""Method ``base``: the base model without any LoRA, the control of every comparison."""

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    nothing = (0.0,) * len(mix.kinds)
    return (Variant(triggers=frozenset(), shares=nothing, text_shares=nothing),)


METHOD = Method(name="base", make_variants=_variants, needs_loras=False)
