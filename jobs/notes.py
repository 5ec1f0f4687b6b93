"""What commands say beside their results, on standard error."""

import sys

from manifests.text.text_rules import printable


def note(text: str) -> None:
    """Print sentences to standard error, with escapes for what a terminal would obey."""
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr)
