"""Method ``freefuse``: masks from the base model, then one gated pass a step (arXiv 2510.23515).

As its code for Stable Diffusion XL does (github.com/yaoliliu/FreeFuse at 720644e): some steps of
the base model give one mask for each concept, of about equal areas; sampling starts again from the
same noise with each concept's LoRA in its mask, in the layers of the transformer blocks that see
the image, and with attention drawn to the concept's own words. LoRAs on other layers act
everywhere. Where ours departs is said in ``docs/methods.md``.
"""

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods.gate import GateRecipe
from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    everything = mix.everything()
    concepts: tuple[int | None, ...] = (None, *range(mix.num_concepts))
    return tuple(
        Variant(
            triggers=frozenset(range(mix.num_concepts)),
            shares=mix.only(concept),
            text_shares=everything,
            concept=concept,
            context_shares=everything,
        )
        for concept in concepts
    )


def _gate(config: SamplerConfig) -> GateRecipe:
    return GateRecipe(
        source="self",
        kind="balanced",
        base_steps=min(config.freefuse_steps, config.num_steps),
        only_attention=True,
        negative_bias=config.freefuse_negative_bias,
        positive_bias=config.freefuse_positive_bias,
    )


METHOD = Method(name="freefuse", make_variants=_variants, min_concepts=1, make_gate=_gate)
