"""Row numbers that a data frame's index leaves in a table, which are no column of the caller's.

pandas writes its index as a first CSV column without a name, calls such a column ``Unnamed: 0``
where it reads it again, and ``__index_level_0__`` in Parquet. R writes one from 1 on. Kept, row
numbers would make two rows that say the same differ.
"""

import re
from functools import lru_cache

_INDEX_NAME = re.compile(r"(Unnamed: \d+(\.\d+)*|__index_level_\d+__|)")
_ROW_NUMBER = re.compile(r"\d{1,18}(\.0)?")


@lru_cache(maxsize=4096)
def index_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return those names that programs give to an index without one of its own."""
    return tuple(name for name in names if _INDEX_NAME.fullmatch(name))


def is_row_number(value: object) -> bool:
    """Return whether a cell of such a column says nothing but which row it is."""
    if isinstance(value, str):
        return _ROW_NUMBER.fullmatch(value) is not None
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    return isinstance(value, float) and value >= 0 and value.is_integer()
