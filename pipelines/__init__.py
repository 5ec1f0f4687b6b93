"""The batch engine: a plan of units, the Ray Data graph that makes them, the ledger of both.

Decisions are pure functions over Arrow tables and frozen values; Ray and storage are a thin shell
around them. ``run.compose_rows`` is what a job calls. Knows neither the command line nor the
machines it runs on.
"""
