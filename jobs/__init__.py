"""Entry points: the ``clora`` command, job files, and what a job does from start to end."""
