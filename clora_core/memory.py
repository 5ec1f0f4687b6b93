"""How many lanes may keep a graph at once, from a memory budget and a measurement.

The joint gradient keeps one graph per lane, so its memory grows with rows and concepts; two-pass
keeps one chunk's. Which one runs is decided here: one lane's graph is weighed once per
image size by summing what autograd saves, and as many lanes as fit the budget share a call.
"""

import os
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Shaped
from torch import Tensor

SHARE_OF_FREE = 0.6
"""The rest is for the weights' workspace, predictions and fragmentation."""


def default_budget_bytes(device: torch.device) -> int:
    """Return the share of the memory now free on ``device`` that graphs may take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * SHARE_OF_FREE)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system counts its free pages
        return 4 * 2**30
    return int(free * SHARE_OF_FREE)


def graph_bytes(run: Callable[[], object], weights: Iterable[Shaped[Tensor, "..."]]) -> int:
    """Return the bytes that autograd saves while ``run`` builds its graph, ``weights`` left out."""
    seen: dict[int, int] = {}

    def weigh(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(weigh, lambda t: t):
        kept = run()
    for weight in weights:
        seen.pop(weight.untyped_storage().data_ptr(), None)
    del kept
    return sum(seen.values())
