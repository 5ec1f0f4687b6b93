"""Method ``merge``: the sum of all deltas in one pass, one prompt with every trigger."""

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    shares = mix.everything()
    triggers = frozenset(range(mix.num_concepts))
    return (Variant(triggers=triggers, shares=shares, text_shares=shares),)


METHOD = Method(name="merge", make_variants=_variants)
