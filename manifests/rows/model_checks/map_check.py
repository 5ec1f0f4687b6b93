"""Whether a row's size and map size are ones that its base model has attention maps for."""

from clora_core.recipe.map_sizes import MapGrid, size_problem
from clora_core.recipe.row import Row


def map_findings(row: Row, maps: MapGrid | None) -> list[tuple[str, str]]:
    """Return (field, sentence) of what the sampler would refuse.

    Args:
        row: Complete.
        maps: Of its base model; None if they aren't known, and then nothing is found.
    """
    if maps is None:
        return []
    try:
        multiple_px = maps.multiple_px(row.sampler.map_size)
    except ValueError as error:
        return [("sampler.map_size", str(error))]
    problem = size_problem(row.width, row.height, multiple_px)
    if problem is None:
        return []
    return [("width" if row.width % multiple_px else "height", problem)]
