"""Methods that sample with one adapter, fused from the row's concept LoRAs beforehand.

``mix-of-show`` (arXiv 2305.18292), ``ziplora`` (2311.13600) and ``custom-diffusion`` (2212.04488);
how each fuses is in ``clora_core.fuse``. Sampling costs what ``merge`` costs, and styles act beside
the fused adapter with their own weights. A fused adapter holds the weights of its concepts.
"""

from clora_core.recipe.methods.method import Method, Mix, Variant


def _variants(mix: Mix) -> tuple[Variant, ...]:
    shares = (1.0,) * (1 + mix.kinds.count("style"))
    everything = frozenset(range(mix.num_concepts))
    return (Variant(triggers=everything, shares=shares, text_shares=shares),)


MIX_OF_SHOW = Method(
    name="mix-of-show",
    make_variants=_variants,
    min_concepts=2,
    fused_by=("fuse_cutoff", "fuse_prompts", "mix_of_show_steps", "text_encoder_lora"),
)

ZIPLORA = Method(
    name="ziplora",
    make_variants=_variants,
    min_concepts=2,
    max_concepts=2,
    # The last three decide the images that it is fitted to.
    fused_by=(
        "ziplora_steps",
        "ziplora_learning_rate",
        "ziplora_overlap",
        "ziplora_images",
        "text_encoder_lora",
        "scheduler",
        "num_steps",
        "guidance_scale",
    ),
)

CUSTOM_DIFFUSION = Method(
    name="custom-diffusion",
    make_variants=_variants,
    min_concepts=2,
    fused_by=("fuse_cutoff", "fuse_prompts", "custom_diffusion_captions", "text_encoder_lora"),
)
