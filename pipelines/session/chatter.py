"""What Ray's C++ half says while it starts, which would bury the sentence that counts."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

NOWHERE = Path(os.devnull)


@contextmanager
def hidden_chatter(path: Path) -> Generator[None]:
    """Write what this process says on standard error to a file instead of the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with path.open("wb") as said:
            os.dup2(said.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
