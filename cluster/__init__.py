"""Machines: the files that describe a job to a cluster, and their check before anything is sent.

``runtime_env.yaml`` is what ``ray job submit`` is given beside the code; ``upload`` says what the
code amounts to under it. Needs the standard library and yaml, so that it runs where Ray doesn't.
"""
