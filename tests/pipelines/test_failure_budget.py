from hypothesis import given
from hypothesis import strategies as st

from pipelines.ledger.failure_budget import FailureBudget


@given(st.floats(0, 1), st.integers(0, 500), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_budget_allows_its_share_its_minimum_and_what_was_known_before(
    share: float, min_rows: int, num_planned: int, num_known: int
):
    limit = FailureBudget(share=share, min_rows=min_rows).limit(num_planned, num_known=num_known)
    assert limit >= num_known + min_rows
    assert limit >= num_known + share * num_planned
    assert limit <= num_known + max(min_rows, share * num_planned + 1)


def test_a_share_of_one_never_stops_a_run():
    assert FailureBudget(share=1.0, min_rows=0).limit(7, num_known=0) == 7
