"""Method ``merge``: the sum of all deltas in one pass, one prompt with every trigger.

A concept with a region acts inside it alone, with its own text; outside all regions the image is
the base model's. Concepts without a region act everywhere. No attention map is needed, so a row
with regions costs what a row without them costs.
"""

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods.gate import GateRecipe
from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    everywhere = frozenset(range(mix.num_concepts)) - mix.placed
    return tuple(_variant(mix, everywhere, concept) for concept in (None, *sorted(mix.placed)))


def _variant(mix: Mix, everywhere: frozenset[int], concept: int | None) -> Variant:
    active = everywhere if concept is None else everywhere | {concept}
    shares = mix.merged(active)
    return Variant(triggers=active, shares=shares, text_shares=shares, concept=concept)


def _gate(_config: SamplerConfig) -> GateRecipe:
    return GateRecipe(source="regions")


METHOD = Method(name="merge", make_variants=_variants, make_gate=_gate)
