"""The masks of gated methods as loops over positions, in plain Python numbers.

A grid is a list of rows of numbers. Nothing here knows batches, padding or tensors.
"""

import math
from collections.abc import Sequence

Grid = list[list[float]]


def grid_of(height: int, width: int, value: float = 0.0) -> Grid:
    """Return a grid with ``value`` everywhere."""
    return [[value] * width for _ in range(height)]


def loop_claims(
    words: Sequence[Sequence[Grid]],
    features: Sequence[Sequence[float]] | None,
    *,
    source: str,
    kind: str,
    threshold: float,
    smoothing: float = 0.0,
    fill_holes: bool = False,
) -> list[Grid]:
    """Return what each concept claims of each position, 0 to 1.

    Args:
        words: For each concept the attention maps of its words.
        features: For each position (row by row) its self-attention features, for source ``self``.
        source: As the setting ``gate_mask_source``.
        kind: As ``gate_mask_kind``.
        threshold: Share of a map's peak, or of a similarity's range, that must be exceeded.
        smoothing: As ``gate_mask_smoothing``.
        fill_holes: As ``gate_mask_fill_holes``.
    """
    if smoothing:
        words = [[loop_blurred(grid, smoothing) for grid in grids] for grids in words]
    height, width = len(words[0][0]), len(words[0][0][0])
    if source == "self":
        assert features is not None
        scores = loop_similarity(words, features)
        relative = [_stretched(grid) for grid in scores]
    else:
        scores = relative = [_strongest([_over_peak(grid) for grid in grids]) for grids in words]
    if kind == "balanced":
        owners = loop_balanced(scores)
        return [
            [[float(owners[y][x] == concept) for x in range(width)] for y in range(height)]
            for concept in range(len(words))
        ]
    if kind == "soft":
        return relative
    claimed = [grid_of(height, width) for _ in words]
    for y in range(height):
        for x in range(width):
            values = [grid[y][x] for grid in relative]
            for concept, value in enumerate(values):
                is_strongest = concept == values.index(max(values))
                if value > threshold and (is_strongest or kind != "argmax"):
                    claimed[concept][y][x] = 1.0
    return [loop_filled(grid) for grid in claimed] if fill_holes else claimed


def _over_peak(grid: Grid) -> Grid:
    peak = max(max(line) for line in grid)
    return [[value / peak for value in line] for line in grid]


def _stretched(grid: Grid) -> Grid:
    lowest, highest = min(map(min, grid)), max(map(max, grid))
    return [[(value - lowest) / (highest - lowest) for value in line] for line in grid]


def _strongest(grids: Sequence[Grid]) -> Grid:
    return [
        [max(values) for values in zip(*lines, strict=True)] for lines in zip(*grids, strict=True)
    ]


def loop_blurred(grid: Grid, deviation: float) -> Grid:
    """Return the grid after a Gaussian blur, cut at 3 deviations; the border repeats outside."""
    height, width = len(grid), len(grid[0])
    radius = math.ceil(3 * deviation)
    offsets = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
    weights = [math.exp(-(dy * dy + dx * dx) / (2 * deviation**2)) for dy, dx in offsets]
    blurred = grid_of(height, width)
    for y in range(height):
        for x in range(width):
            for (dy, dx), weight in zip(offsets, weights, strict=True):
                near_y = min(max(y + dy, 0), height - 1)
                near_x = min(max(x + dx, 0), width - 1)
                blurred[y][x] += weight * grid[near_y][near_x] / sum(weights)
    return blurred


def loop_similarity(
    words: Sequence[Sequence[Grid]], features: Sequence[Sequence[float]]
) -> list[Grid]:
    """Return how like each concept's core every position is, after FreeFuse's softmax."""
    height, width = len(words[0][0]), len(words[0][0][0])
    num_positions = height * width
    attention = [
        [
            sum(grid[y][x] for grid in grids) / len(grids)
            for y in range(height)
            for x in range(width)
        ]
        for grids in words
    ]
    alike: list[Grid] = []
    for own in attention:
        contrast = [
            len(words) * own[p] - sum(other[p] for other in attention if other is not own)
            for p in range(num_positions)
        ]
        ranked = sorted(range(num_positions), key=lambda p: -contrast[p])
        core = ranked[: max(1, num_positions // 10)]
        similar = [
            sum(_dot(features[q], features[p]) for q in core) / len(core)
            for p in range(num_positions)
        ]
        powers = [math.exp((value - max(similar)) / 1000.0) for value in similar]
        shares = [power / sum(powers) for power in powers]
        alike.append([shares[y * width : (y + 1) * width] for y in range(height)])
    return alike


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def loop_balanced(scores: Sequence[Grid]) -> list[list[int]]:
    """Return which concept gets each position: FreeFuse's balanced argmax, number by number.

    As ``stabilized_balanced_argmax`` of github.com/yaoliliu/FreeFuse at 720644e.
    """
    num, height, width = len(scores), len(scores[0]), len(scores[0][0])
    places = [(y, x) for y in range(height) for x in range(width)]
    logits = [{(y, x): grid[y][x] for y, x in places} for grid in scores]
    values = [value for grid in logits for value in grid.values()]
    spread = max(max(values) - min(values), 1e-4)
    down = {y: -1 + 2 * y / (height - 1) if height > 1 else -1.0 for y in range(height)}
    across = {x: 1.3 * (-1 + 2 * x / (width - 1)) if width > 1 else -1.3 for x in range(width)}
    bias = [0.0] * num
    running = []
    for grid in logits:
        lowest, highest = min(grid.values()), max(grid.values())
        running.append({p: (grid[p] - lowest) / (highest - lowest + 1e-8) for p in places})
    current = [dict(grid) for grid in logits]
    for number in range(15):
        biased = [{p: current[k][p] - bias[k] for p in places} for k in range(num)]
        for p in places:
            lowest = min(biased[k][p] for k in range(num))
            highest = max(biased[k][p] for k in range(num))
            for k in range(num):
                share = (biased[k][p] - lowest) / (highest - lowest + 1e-8)
                running[k][p] = 0.8 * share + 0.2 * running[k][p]
        owners = {p: _first_best([biased[k][p] for k in range(num)]) for p in places}
        for k in range(num):
            mass = sum(running[k].values()) + 1e-6
            centre_y = sum(running[k][y, x] * down[y] for y, x in places) / mass
            centre_x = sum(running[k][y, x] * across[x] for y, x in places) / mass
            surplus = list(owners.values()).count(k) - len(places) / num
            sign = (surplus > 0) - (surplus < 0)
            bias[k] += sign * 0.01 * spread * 0.95**number
            bias[k] = min(max(bias[k], -10 * spread), 10 * spread)
            for y, x in places:
                near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
                votes = sum(running[k].get(place, 0.0) for place in near) / 8
                away = (down[y] - centre_y) ** 2 + (across[x] - centre_x) ** 2
                current[k][y, x] = logits[k][y, x] - bias[k] + 3e-5 * votes - 3e-5 * away
    return [
        [_first_best([current[k][y, x] for k in range(num)]) for x in range(width)]
        for y in range(height)
    ]


def _first_best(values: Sequence[float]) -> int:
    return list(values).index(max(values))


def loop_filled(grid: Grid) -> Grid:
    """Return the grid with its holes filled: a flood over edges from outside leaves them dry."""
    height, width = len(grid), len(grid[0])
    wet: set[tuple[int, int]] = set()
    border = [(-1, x) for x in range(-1, width + 1)]
    waiting = list(border)
    while waiting:
        y, x = waiting.pop()
        if not (-1 <= y <= height and -1 <= x <= width) or (y, x) in wet:
            continue
        if 0 <= y < height and 0 <= x < width and grid[y][x]:
            continue
        wet.add((y, x))
        waiting += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [[float((y, x) not in wet) for x in range(width)] for y in range(height)]


def loop_region(box: tuple[float, float, float, float] | None, height: int, width: int) -> Grid:
    """Return 1 where a position's centre is in the box; everywhere without one."""
    if box is None:
        return grid_of(height, width, 1.0)
    left, top, right, bottom = box
    return [
        [
            float(left <= (x + 0.5) / width < right and top <= (y + 0.5) / height < bottom)
            for x in range(width)
        ]
        for y in range(height)
    ]


def loop_shares(
    claimed: Sequence[Grid], regions: Sequence[Grid], replaced: Sequence[bool]
) -> list[Grid]:
    """Return every part's share at the regions' size, the base's first.

    Args:
        claimed: What each concept claims, at any size; enlarged to the nearest position.
        regions: Where each concept may be, at the latents' size.
        replaced: Concepts that have all of their region.
    """
    height, width = len(regions[0]), len(regions[0][0])
    shares = [grid_of(height, width) for _ in range(1 + len(regions))]
    for y in range(height):
        for x in range(width):
            wanted: list[float] = []
            for claim, region, whole in zip(claimed, regions, replaced, strict=True):
                of_maps = claim[y * len(claim) // height][x * len(claim[0]) // width]
                wanted.append(region[y][x] if whole else of_maps * region[y][x])
            total = sum(wanted)
            for concept, value in enumerate(wanted):
                shares[1 + concept][y][x] = value / total if total > 1 else value
            shares[0][y][x] = max(0.0, 1 - total)
    return shares


def loop_pooled(grid: Grid, height: int, width: int) -> Grid:
    """Return the grid at a layer's size: each position the mean of all that its square touches."""
    rows = [_touched(y, height, len(grid)) for y in range(height)]
    columns = [_touched(x, width, len(grid[0])) for x in range(width)]
    pooled = grid_of(height, width)
    for y in range(height):
        for x in range(width):
            values = [grid[old_y][old_x] for old_y in rows[y] for old_x in columns[x]]
            pooled[y][x] = sum(values) / len(values)
    return pooled


def _touched(place: int, num_places: int, num_old: int) -> list[int]:
    """Return the old places that share more than an edge with one of the new places."""
    return [
        old
        for old in range(num_old)
        if old * num_places < (place + 1) * num_old and (old + 1) * num_places > place * num_old
    ]
