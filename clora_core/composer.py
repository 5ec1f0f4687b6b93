"""The composer: rows in, images and diagnostics out. What an actor calls.

Any mix of rows may be given: they are grouped by kind into batches that one sampler call can make
together. A row's own fault comes back as a value in its place and its neighbours are made; the
machine's faults are raised.
"""

from collections.abc import Sequence

import torch

from clora_core.batch import Batch, run_batch
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.row_words import check_words, row_words
from clora_core.lora.cache import LoraCache
from clora_core.lora.factors import LoraFactors
from clora_core.lora.load import lora_targets, read_lora
from clora_core.memory import default_budget_bytes
from clora_core.recipe.errors import CompositionError, PromptError
from clora_core.recipe.map_sizes import size_problem
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage, RowFailure
from clora_core.sampling.row_lanes import BatchKind, RowLanes, row_lanes


class Composer:
    """Makes images with one base model.

    Args:
        model: Base model; never changed beyond a call.
        loras: Cache of LoRA factors in the machine's memory, shared by all calls.
        device_loras: A second one in the device's memory, so that what is used again is not sent
            again; None for none. It is given up first when memory runs out.
        max_lanes: Most lanes in one UNet call; None for no limit. Out of memory halves it and
            tries again.
        graph_budget_bytes: Memory that the gradient's graphs may take; None for a share of what
            is free when a batch starts.
    """

    def __init__(
        self,
        model: DiffusionModel,
        loras: LoraCache,
        *,
        device_loras: LoraCache | None = None,
        max_lanes: int | None = None,
        graph_budget_bytes: int | None = None,
    ) -> None:
        self._model = model
        self._loras = loras
        self._device_loras = device_loras
        self._max_lanes = max_lanes
        self._graph_budget_bytes = graph_budget_bytes
        self._targets = lora_targets(model.components)

    @torch.inference_mode(mode=False)  # which a caller may be in, and where nothing has a gradient
    def compose(
        self, rows: Sequence[Row], *, keep_maps: bool = False
    ) -> list[ComposedImage | RowFailure]:
        """Return one result per row, in order; with maps and masks of every step if asked for."""
        results: dict[int, ComposedImage | RowFailure] = {}
        groups: dict[BatchKind, list[tuple[int, RowLanes]]] = {}
        factors: dict[str, LoraFactors] = {}
        for index, row in enumerate(rows):
            try:
                self._check_size(row)
                lanes = row_lanes(self._model, row, row_words(row, self._factors))
                factors |= {lora.digest: self._factors(lora) for lora in row.sampled_loras}
            except CompositionError as error:
                results[index] = RowFailure.of(error)
                continue
            groups.setdefault(lanes.kind, []).append((index, lanes))
        for members in groups.values():
            made = self._compose_group([lanes for _, lanes in members], factors, keep_maps)
            results |= dict(zip((index for index, _ in members), made, strict=True))
        return [results[index] for index in range(len(rows))]

    def _check_size(self, row: Row) -> None:
        try:
            layers = self._model.map_layers(row.sampler.map_size)
        except ValueError as error:
            raise PromptError(str(error)) from error
        multiple_px = self._model.image_scale * layers.downsampling
        problem = size_problem(row.width, row.height, multiple_px)
        if problem is not None:
            raise PromptError(problem)

    def _factors(self, lora: Lora) -> LoraFactors:
        def on_host() -> LoraFactors:
            return self._loras.get(lora.digest, lambda: read_lora(lora.uri, self._targets))

        def on_device() -> LoraFactors:
            return on_host().to(self._model.device)

        cache = self._device_loras
        factors = on_host() if cache is None else cache.get(lora.digest, on_device)
        check_words(lora, factors)
        return factors

    def _compose_group(
        self, group: Sequence[RowLanes], factors: dict[str, LoraFactors], keep_maps: bool
    ) -> list[ComposedImage | RowFailure]:
        made = self._within_memory(Batch(tuple(group), factors, keep_maps))
        if self._model.dtype in (torch.float32, torch.float64):
            return made
        # Half precision overflows on some rows; in full precision most of them come out.
        again = [index for index, result in enumerate(made) if isinstance(result, RowFailure)]
        if again:
            rows = tuple(group[index] for index in again)
            with self._model.in_dtype(torch.float32):
                second = self._within_memory(Batch(rows, factors, keep_maps, retried=True))
            for index, result in zip(again, second, strict=True):
                made[index] = result
        return made

    def _within_memory(self, batch: Batch) -> list[ComposedImage | RowFailure]:
        num_lanes = 2 * sum(lanes.num_lanes for lanes in batch.rows)
        while True:
            budget = self._graph_budget_bytes or default_budget_bytes(self._model.device)
            try:
                return run_batch(
                    self._model, batch, max_lanes=self._max_lanes, graph_budget_bytes=budget
                )
            except torch.OutOfMemoryError:
                halved = min(self._max_lanes or num_lanes, num_lanes) // 2
                may_try_again = self._holds_device_loras()
                if halved == 0 and not may_try_again:
                    raise
            # Behind the handler: the traceback held the failed pass's tensors until here.
            if may_try_again and self._device_loras is not None:
                self._device_loras.clear()
            else:
                self._max_lanes = halved
            torch.cuda.empty_cache()

    def _holds_device_loras(self) -> bool:
        return self._device_loras is not None and self._device_loras.stats.bytes > 0
