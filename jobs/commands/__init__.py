"""The commands of ``clora``, one file each."""
