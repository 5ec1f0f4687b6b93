"""The batch engine: a plan of units, the Ray Data graph that makes them, the ledger of both.

Decisions are pure functions over Arrow tables and frozen values; Ray and storage are a thin shell
around them. ``run.compose_rows`` is what a job calls. Knows neither the command line nor the
machines it runs on.

    storage     a folder or a bucket            units       what is written, and how it is read
    ledger      what is made and what failed    planning    from rows to units
    leases      who may write                   session     the Ray cluster of a run
    metrics     Prometheus                      stages      deal, generate, score, commit
    outputs     what people take away           upkeep      verify, repair, delete what is left
    evaluation  methods compared                report      the page
"""
