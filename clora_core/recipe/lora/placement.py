"""Where each layer of a LoRA file belongs in a base model, by names and shapes alone.

The model itself is the dictionary: a layer is looked up among those that the model really has, so
an unknown or misspelt one is noticed, never skipped. A run asks before it uses a weight, and a
check beforehand asks where no model is loaded; both get their answer here.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.names import split_layer_name
from clora_core.recipe.lora.sgm_names import diffusers_spelling, levels
from clora_core.recipe.lora.shapes.size import Shape

Place = tuple[str, str]
"""Component (``unet``, ``text_encoder`` ...) and dotted name of a layer of the base model."""

MAX_LISTED = 3


class ModelLayers:
    """The linear layers, convolutions and norms of one base model.

    Args:
        shapes: Component to layer to the shape of its weight.
    """

    def __init__(self, shapes: Mapping[str, Mapping[str, Shape]]) -> None:
        self.shapes = shapes
        self._by_spelling = {component: _spellings(layers) for component, layers in shapes.items()}
        self._levels = levels(self._by_spelling.get("unet", {}))

    def find(self, layer: str, owner: str | None = None) -> Place | None:
        """Return the layer that a file calls ``layer``, None if the model has none such.

        Args:
            layer: As the file names it.
            owner: Its component, where more than the name says it.
        """
        component, rest = split_layer_name(layer)
        component = owner or component
        known = self._by_spelling.get(component, {})
        flat = rest.replace(".", "_")
        found = known.get(flat)
        if found is None and component == "unet":
            found = known.get(diffusers_spelling(flat, self._levels))
        return (component, found) if found else None


def placed_layers(
    path: str | Path, layers: Sequence[LoraLayer], model: ModelLayers
) -> dict[Place, LoraLayer]:
    """Return the layers of a file by their places in ``model``.

    Args:
        path: The file, for messages.
        layers: Of the file.
        model: The base model.

    Raises:
        LoraFileError: A layer finds no place, two find one, or shapes are not the base model's
            (with how many layers fit, and names of some that don't).
    """
    placed: dict[Place, LoraLayer] = {}
    strangers: list[str] = []
    for layer in layers:
        place = model.find(layer.name, layer.owner)
        if place is None:
            strangers.append(layer.name)
        elif (other := placed.setdefault(place, layer)) is not layer:
            raise LoraFileError(
                f"{path} holds {'.'.join(place)} twice, as {other.name[:100]!r} and "
                f"{layer.name[:100]!r}; save it with one tool, under one name a layer"
            )
    if strangers:
        raise LoraFileError(
            f"{path} matches this base model in {len(placed)} of {len(layers)} "
            f"layers; there is no place for {_listed(strangers)}. It was trained for "
            f"another base model, or is not a plain LoRA: use a LoRA or a base model of the same "
            f"family"
        )
    _check_shapes(path, placed, model)
    return placed


def _check_shapes(path: str | Path, placed: Mapping[Place, LoraLayer], model: ModelLayers) -> None:
    misfits: list[str] = []
    first = ""
    for (component, name), layer in placed.items():
        weight = model.shapes[component][name]
        reason = layer.misfit(weight)
        if reason is not None:
            first = first or reason
            misfits.append(f"{component}.{name}")
    if misfits:
        others = f" ({_listed(misfits[1:])} don't fit either)" if misfits[1:] else ""
        raise LoraFileError(
            f"{path} matches this base model in {len(placed) - len(misfits)} of {len(placed)} "
            f"layers: factors of {misfits[0]} have {first}{others}; the LoRA was trained for "
            f"another base model, use a LoRA or a base model of the same family"
        )


def _spellings(layers: Iterable[str]) -> dict[str, str]:
    """Map a layer's name with underscores, with and without ``text_model``, to its own name.

    Text encoders are written with the ``text_model`` level by trainers and have lost or kept it in
    the model from one version of transformers to the next.
    """
    found: dict[str, str] = {}
    for layer in layers:
        flat = layer.replace(".", "_")
        bare = flat.removeprefix("text_model_")
        for spelling in (flat, bare, f"text_model_{bare}"):
            found.setdefault(spelling, layer)
    return found


def _listed(layers: Sequence[str]) -> str:
    more = len(layers) - MAX_LISTED
    named = ", ".join(repr(layer[:100]) for layer in layers[:MAX_LISTED])
    return named + (f" and {more:,} more" if more > 0 else "")
