"""The ways to combine LoRAs, by the name a row gives.

A method is a value: how many variants of the prompt it runs, which LoRAs each variant has in the
text encoder and, step by step, in the UNet, and whether the contrastive loss and the masks are on.
To add one, write a module beside these with a ``Method`` and name it here.
"""

from collections.abc import Mapping

from clora_core.methods import base, clora, composite, merge, single, switch
from clora_core.methods.method import Method, Variant

METHODS: Mapping[str, Method] = {
    "base": base.METHOD,
    "single": single.METHOD,
    "merge": merge.METHOD,
    "switch": switch.METHOD,
    "composite": composite.METHOD,
    "clora": clora.METHOD,
    "clora-no-update": clora.WITHOUT_UPDATE,
    "clora-no-mask": clora.WITHOUT_MASK,
    "clora-neither": clora.WITHOUT_EITHER,
}

__all__ = ["METHODS", "Method", "Variant"]
