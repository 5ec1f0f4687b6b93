"""What goes wrong with the place that an output is kept in, as two kinds of sentence."""

from clora_core.recipe.errors import CloraError


class StorageError(CloraError):
    """A place cannot be written or read now; the message names it and the way out.

    It may be possible later: a store that is down, a disk that is full, a share that is away.
    """

    exit_code = 1


class PlaceError(StorageError):
    """The place is not one that can be used: the same request is refused again."""

    exit_code = 2
