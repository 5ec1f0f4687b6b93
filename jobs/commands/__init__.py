"""The commands of ``clora``, one file each; run as ``clora NAME`` or ``python -m jobs NAME``."""

import sys

if sys.argv[:1] == ["-m"]:
    # A module of this package run by its own name would end with 0 and do nothing.
    raise SystemExit("run a command as: python -m jobs NAME")
