"""A cell of text that holds a list or a struct: JSON, or as another program writes one."""

from typing import Any

from manifests.text.json_text import load_json
from manifests.text.list_text import load_list_text


def load_cell(text: str) -> Any:
    """Return the value of a cell.

    Raises:
        ValueError: It cannot be read; the message says what it is not.
    """
    try:
        return load_json(text)
    except RecursionError:
        raise ValueError("is nested too deeply; flatten it") from None
    except ValueError as not_json:
        try:
            return load_list_text(text)
        except ValueError as no_list:
            raise ValueError(
                f"is not valid JSON ({not_json}), and no list as Python, NumPy or DuckDB write it "
                f"({no_list})"
            ) from None
