"""Method ``k-lora``: a concept and a style, one of them in each attention layer (arXiv 2502.18461).

Every step each attention projection of the UNet runs with one LoRA alone: the one whose largest
entries add up to more, once the two files are brought to one level. The style's count the more, the
later the step. All other layers and the text encoder have both, as in ``merge``.
"""

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    both = mix.everything()
    triggers = frozenset(range(mix.num_concepts))
    return (Variant(triggers=triggers, shares=both, text_shares=both),)


def layer_scale(step: int, config: SamplerConfig) -> float:
    """Return the factor of the style's sums at ``step``: alpha t / T + beta.

    The released code counts calls of projections, 28,000 for the 560 of Stable Diffusion XL in 50
    steps, so t / T is the share of steps that are done.
    """
    return config.k_lora_alpha * step / config.num_steps + config.k_lora_beta


METHOD = Method(
    name="k-lora",
    make_variants=_variants,
    min_concepts=1,
    max_concepts=1,
    num_styles=1,
    layer_scale=layer_scale,
)
