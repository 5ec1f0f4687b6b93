"""``python -m jobs compose JOB``: the ``clora`` command where only its code is, as on a cluster."""

from jobs.cli import main

if __name__ == "__main__":
    main()
