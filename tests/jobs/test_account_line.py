from jobs.console.account_line import account_line
from pipelines.ledger.account import Account


def account(**changes: int) -> Account:
    values = {
        "num_rows": 160,
        "num_made": 118,
        "num_failed": 0,
        "num_given_up": 0,
        "num_already_made": 0,
        "num_duplicates": 0,
        "num_missing": 0,
        "num_doubled": 0,
    }
    return Account(**(values | changes))


def test_the_line_adds_up_and_says_where_to_look():
    told = account_line(account(num_failed=2, num_already_made=40), "out")
    assert told == "118 made, 2 failed (see out/errors), 40 skipped (already made)"


def test_the_reasons_for_skipping_are_told_apart():
    both = account(num_already_made=39, num_duplicates=1)
    assert account_line(both, "out").endswith(
        "40 skipped (39 already made, 1 equal to another row)"
    )
    doubles = account(num_duplicates=3)
    assert account_line(doubles, "out").endswith("3 skipped (equal to another row)")
    assert account_line(account(), "out") == "118 made, 0 failed, 0 skipped"


def test_rows_that_failed_too_often_come_with_the_way_out():
    told = account_line(account(num_failed=2, num_given_up=1), "out")
    assert "1 failed too often, `clora retry` tries them again" in told


def test_what_is_missing_or_doubled_is_never_hidden():
    told = account_line(account(num_missing=5, num_doubled=1), "out")
    assert "5 not made yet (run the same command again)" in told
    assert "1 doubled, which must not be (see out/rows)" in told
