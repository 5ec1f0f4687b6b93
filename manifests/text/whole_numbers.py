"""Whole numbers as tables hold them: integers, floats of columns with gaps, decimals, texts.

A number that may have been rounded on its way is refused: a row must be made again exactly.
"""

import decimal
import re

MAX_SEED = 2**63 - 1

MAX_EXACT_FLOAT = 2**53 - 1
"""From the next number on, several whole numbers are one float."""

_DIGITS = re.compile(r"\s*([+-]?\d{1,1000})(\.0*|,00?)?\s*")
"""A decimal comma has one zero or two after it; with three, 7,000 may be seven thousand."""
_SCIENTIFIC = re.compile(r"\s*[+-]?\d+([.,]\d*)?[eE][+-]?\d+\s*")


def whole_number(value: object) -> int:
    """Return the whole number that a cell holds.

    Raises:
        ValueError: It holds none, or one that may have been rounded; the message is the rule.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return _exact(int(value))
    if isinstance(value, decimal.Decimal) and value.is_finite() and value == value.to_integral():
        return int(value)
    if isinstance(value, str):
        digits = _DIGITS.fullmatch(value)
        if digits is not None:
            whole = int(digits.group(1))
            return _exact(whole) if digits.group(2) else whole
        if _SCIENTIFIC.fullmatch(value):
            raise ValueError(
                "should be written with all of its digits; a spreadsheet or a column of floats "
                "shortens large numbers, and may have rounded this one"
            )
    raise ValueError("should be a whole number, in digits alone")


def seed_number(value: object) -> int:
    """Return the seed that a cell holds, 0 to ``MAX_SEED``.

    Raises:
        ValueError: It holds none; the message is the rule and the way out.
    """
    seed = whole_number(value)
    if seed < 0:
        raise ValueError(
            "should be 0 or more: a row can be made again exactly, so no seed is random; write a "
            "number, or let clora sweep number the rows (seeds: {first: 0, count: 8})"
        )
    if seed > MAX_SEED:
        raise ValueError(
            f"should be at most {MAX_SEED} (2**63 - 1): outputs store seeds as signed 64-bit "
            "integers, which all readers of Parquet know; choose a smaller seed"
        )
    return seed


def _exact(number: int) -> int:
    if abs(number) > MAX_EXACT_FLOAT:
        raise ValueError(
            "should not be a floating-point number from 2**53 on, because these are rounded; "
            "write the column as integers or as texts"
        )
    return number
