"""What is said of words that stand together and do not fit one window of the text encoder."""

from collections.abc import Sequence

from clora_core.recipe.prompts.marked import MarkedPrompt, Span


def too_long(
    tokens: Sequence[Span],
    marked: MarkedPrompt,
    rest: range,
    capacity: int,
    embedded: Sequence[range],
) -> str:
    """Return what is wrong with words that must stay together and are longer than a chunk.

    Args:
        tokens: Of the text.
        marked: The text.
        rest: Tokens that begin with those words.
        capacity: Words' tokens that a chunk has.
        embedded: The tokens of each embedding in the text.
    """
    last = rest.start + capacity
    start, end = next(
        (span for span in marked.together if span[0] < tokens[last][0] < span[1]), tokens[last]
    )
    words = repr(marked.text[start:end])
    inside = [each for each in embedded if start <= tokens[each.start][0] < end]
    reads = f"the text encoder reads {capacity} tokens at once"
    if not inside:
        return (
            f"{words} is one concept and has more tokens than the {capacity} that the text encoder "
            "reads at once; shorten the trigger"
        )
    longest = max(inside, key=len)
    name = marked.text[slice(*tokens[longest.start])]
    vectors = f"embedding {name!r} has {len(longest)} vectors, each a token"
    if len(longest) > capacity:
        return f"the {vectors}, and {reads}; use an embedding of fewer vectors"
    return (
        f"{words} is one concept, whose {vectors}, and has more tokens in all than the {capacity} "
        "that the text encoder reads at once; use an embedding of fewer vectors, or fewer words "
        "beside it"
    )
