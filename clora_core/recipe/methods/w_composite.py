"""Method ``w-composite``: LoRA Composite as a weighted mean (arXiv 2606.03792).

As ``composite``, but each concept's predictions weigh as much as the text embedding of its words is
like that of the whole prompt.
"""

from dataclasses import replace

from clora_core.recipe.methods import composite

METHOD = replace(composite.METHOD, name="w-composite", importance="triggers", weighted=True)
