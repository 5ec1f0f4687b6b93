"""Words as a text encoder gets them, with the emphasis on each and where new chunks begin."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class PromptText:
    """A text without syntax. Slices and sums keep weights and breaks where they belong.

    Attributes:
        words: The characters.
        weights: Emphasis of each character; empty where all have 1.
        breaks: Places in ``words`` where a new chunk begins, in order. Several at one place leave
            empty chunks between them.
    """

    words: str
    weights: tuple[float, ...] = ()
    breaks: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, part: slice) -> "PromptText":
        """Return a part; a break where it begins belongs to what comes before it."""
        if not self.weights and not self.breaks:
            return PromptText(self.words[part])
        start, stop, _ = part.indices(len(self.words))
        breaks = tuple(place - start for place in self.breaks if start < place <= stop)
        return PromptText(self.words[start:stop], self.weights[start:stop], breaks)

    def __add__(self, other: "PromptText") -> "PromptText":
        weights: tuple[float, ...] = ()
        if not (self.weights or self.breaks or other.weights or other.breaks):
            return PromptText(self.words + other.words)
        if self.weights or other.weights:
            weights = (*self.weight_of_each(), *other.weight_of_each())
        moved = (place + len(self.words) for place in other.breaks)
        return PromptText(self.words + other.words, weights, (*self.breaks, *moved))

    def leading_breaks(self) -> "PromptText":
        """Return the breaks before the first character, which no part holds."""
        return PromptText("", breaks=tuple(place for place in self.breaks if place == 0))

    def weight_of_each(self) -> tuple[float, ...]:
        """Return the emphasis of each character."""
        return self.weights or (1.0,) * len(self.words)

    def times(self, weight: float) -> "PromptText":
        """Return the text with its emphasis multiplied."""
        if weight == 1:
            return self
        weights = tuple(own * weight for own in self.weight_of_each())
        return PromptText(self.words, weights, self.breaks)

    def emphasised(self) -> list[tuple[str, float]]:
        """Return the words whose weight is not 1, neighbours of one weight together, in order."""
        found: list[tuple[str, float]] = []
        before = 1.0
        for character, weight in zip(self.words, self.weights, strict=bool(self.weights)):
            if weight != 1:
                text = found.pop()[0] if found and weight == before else ""
                found.append((text + character, weight))
            before = weight
        return [(text.strip(), weight) for text, weight in found if text.strip()]
