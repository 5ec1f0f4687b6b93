"""Entry points: the ``clora`` command, job files, and what a job does from start to end."""

import os

# A plan goes through far more memory than it holds, and Arrow's usual allocator keeps what was
# freed: with this one a million rows are planned in two thirds of the memory. Arrow reads it once,
# when it is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
