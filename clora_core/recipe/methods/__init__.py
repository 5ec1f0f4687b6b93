"""The ways to combine LoRAs, by the name a row gives.

A method is a value: how many variants of the prompt it runs, which LoRAs each variant has in the
text encoder and, step by step, in the UNet, whether the contrastive loss and the masks are on, and
whether all variants share one lane.
To add one, write a module beside these with a ``Method`` and put it in the list here.
"""

from collections.abc import Mapping

from clora_core.recipe.methods import (
    base,
    clora,
    clora_gated,
    composite,
    freefuse,
    fused,
    k_lora,
    merge,
    single,
    switch,
    w_composite,
    w_switch,
)
from clora_core.recipe.methods.gate import GateRecipe
from clora_core.recipe.methods.method import Importance, Method, Mix, Variant

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        base.METHOD,
        single.METHOD,
        merge.METHOD,
        switch.METHOD,
        composite.METHOD,
        w_switch.METHOD,
        w_composite.METHOD,
        k_lora.METHOD,
        clora.METHOD,
        clora.WITHOUT_UPDATE,
        clora.WITHOUT_MASK,
        clora.WITHOUT_EITHER,
        clora_gated.METHOD,
        clora_gated.WITHOUT_UPDATE,
        freefuse.METHOD,
        fused.MIX_OF_SHOW,
        fused.ZIPLORA,
        fused.CUSTOM_DIFFUSION,
    )
}

__all__ = ["METHODS", "GateRecipe", "Importance", "Method", "Mix", "Variant"]
