"""Method ``clora-gated`` and its ablation: CLoRA's maps, loss and masks in one lane.

The variants are those of ``clora``. They share one lane, in which each position takes the LoRA
weights and the text of the variants whose masks hold it; the maps of all variants' texts come from
the same pass, so the loss moves the latents with one lane's graph, and no prediction is blended.
"""

from dataclasses import replace

from clora_core.recipe.methods import clora
from clora_core.recipe.methods.gate import gate_of

METHOD = replace(clora.METHOD, name="clora-gated", masked=False, make_gate=gate_of)
WITHOUT_UPDATE = replace(METHOD, name="clora-gated-no-update", guided=False)
