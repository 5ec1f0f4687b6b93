"""The files of ``leases/``: one an epoch, and what each says of the run that holds or held it."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from pipelines.storage import Storage

__all__ = [
    "LEASES_FOLDER",
    "LeaseRecord",
    "LeaseState",
    "earlier_leases",
    "encode_lease",
    "latest_lease",
    "lease_name",
    "read_lease",
]

LEASES_FOLDER = "leases"

LeaseState = Literal["live", "stopped", "finished"]


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """What the file of an epoch says; times are ISO 8601, UTC, and for people only.

    Attributes:
        epoch: Counts up from 1, without gaps.
        run_id: The run that holds or held it.
        host: Where its driver runs.
        process: Its driver, as ``process_identity`` words it.
        began_at: When it was claimed.
        beat: Counts up while the run lives.
        beat_at: When it last did.
        state: ``live``, ``stopped`` in good order before all was made, or ``finished``.
        is_sealed: No unit of a run before this one can be committed any more, but for those that
            this one plans too.
    """

    epoch: int
    run_id: str
    host: str
    process: str
    began_at: str
    beat: int = 0
    beat_at: str = ""
    state: LeaseState = "live"
    is_sealed: bool = False

    def described(self) -> str:
        """Return who holds it and since when, for a message."""
        return f"run {self.run_id} on {self.host}, which began {self.began_at}"


def latest_lease(storage: Storage) -> LeaseRecord | None:
    """Return the record of the latest epoch, None if there was no run yet."""
    names = storage.list(LEASES_FOLDER, ".json")
    return _read(storage, names[-1]) if names else None


def earlier_leases(storage: Storage, epoch: int) -> list[LeaseRecord]:
    """Return the records before ``epoch`` whose workers may still commit, the latest first."""
    found: list[LeaseRecord] = []
    for earlier in range(epoch - 1, 0, -1):
        record = read_lease(storage, earlier)
        if record.state != "finished":
            found.append(record)
        if record.is_sealed:
            break
    return found


def lease_name(epoch: int) -> str:
    """Return the name of an epoch's file; names sort as epochs do."""
    return f"{LEASES_FOLDER}/epoch-{epoch:09}.json"


def read_lease(storage: Storage, epoch: int) -> LeaseRecord:
    """Return the record of an epoch; FileNotFoundError if nobody claimed it."""
    return _read(storage, lease_name(epoch))


def encode_lease(record: LeaseRecord) -> bytes:
    """Return the record as the content of its file."""
    return json.dumps(asdict(record), indent=2).encode()


def _read(storage: Storage, name: str) -> LeaseRecord:
    return LeaseRecord(**json.loads(storage.read(name)))
