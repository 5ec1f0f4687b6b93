"""When a run is broken rather than unlucky: how many rows may fail before it stops.

The limit is a number of rows that follows from the plan, not a share of what was tried so far:
units are dealt out by LoRA set, so a bad set that comes first must not look like a bad run. Rows
whose LoRA file was known to be unusable before the run do not count; they cost nothing and were
told beforehand.
"""

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from clora_core.recipe.errors import CloraError

if TYPE_CHECKING:
    from pipelines.ledger.account import Account


class TooManyFailuresError(CloraError):
    """A run stopped because too many rows failed.

    Attributes:
        account: Where the manifest's rows are; set when the run has come to an end.
    """

    exit_code = 1

    account: "Account | None" = None


class FailureBudget(BaseModel, frozen=True, extra="forbid"):
    """How many rows may fail before a run stops, because something is wrong with all of them.

    Rows whose LoRA file is known to be unusable before the run don't count, and ``clora retry``
    has no budget. What is made stays, and the same command continues.

    Attributes:
        share: Of the rows to make. More carries on for longer; 1 never stops.
        min_rows: So many may fail in any case, so that a small run is not stopped by a few.
    """

    share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    min_rows: Annotated[int, Field(ge=0)] = 100

    def limit(self, num_planned: int, *, num_known: int) -> int:
        """Return the most rows that may fail.

        Args:
            num_planned: Rows of the plan.
            num_known: Rows of it that cannot but fail.
        """
        return num_known + max(self.min_rows, math.ceil(self.share * num_planned))
