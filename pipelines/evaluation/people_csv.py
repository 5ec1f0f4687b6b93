"""CSV for people, which is opened in spreadsheets: no text of a stranger's is run as a formula.

Spreadsheets compute what a cell begins with ``=``, ``+``, ``-`` or ``@``, and prompts and names of
LoRAs may begin with anything. So ``'`` stands in front of such a text, as OWASP advises (CSV
Injection). Where a list separator other than the comma is set, ``;`` or a tab within a text begins
a cell too. Numbers stay numbers.

The rule can be undone: wherever a cell could begin (at the start of a text, behind ``;``, a tab or
a line break), one ``'`` is added in front of the signs above, a tab or a line break, with any
quotes that stand before them. Taking one ``'`` away in the same places gives the text again.
"""

import re
from collections.abc import Iterable, Sequence

_FORMULA_START = re.compile("(?:^|(?<=[;\t\r\n]))(?=['\"]*[=+\\-@\t\r\n＝＋－＠])")  # noqa: RUF001
"""Where a cell could begin and does with what a spreadsheet would run, quotes before it or not."""

_SEPARATORS = re.compile('[",;\t\r\n]')
"""Any of them may end a cell in some spreadsheet; the csv module leaves some of them bare."""


def csv_for_people(lines: Iterable[Sequence[object]]) -> str:
    """Return lines of cells as CSV: texts made harmless, everything else as it is."""
    return "".join(",".join(map(_cell, line)) + "\n" for line in lines)


def harmless_text(text: str) -> str:
    """Return ``text`` with ``'`` in front of all that a spreadsheet would take for a formula."""
    return _FORMULA_START.sub("'", text)


def _cell(value: object) -> str:
    text = harmless_text(value) if isinstance(value, str) else str(value)
    if _SEPARATORS.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
