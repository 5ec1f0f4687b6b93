"""What goes wrong between here and a job server."""

from clora_core.recipe.errors import CloraError


class ServerError(CloraError):
    """The job server cannot be reached or refuses; the message says what to do."""

    exit_code = 1


class ServerRefusesError(ServerError):
    """It would refuse the same again: another kind of server, an old one, no token."""

    exit_code = 2
