"""Method ``single``: one concept LoRA alone, as its references are made; styles stay on."""

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    shares = mix.only(0)
    return (Variant(triggers=frozenset({0}), shares=shares, text_shares=shares),)


METHOD = Method(name="single", make_variants=_variants, min_concepts=1, max_concepts=1)
