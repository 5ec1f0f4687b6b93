"""The files of ``leases/``: one an epoch, and what each says of the run that holds or held it."""

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError, encode_json, read_json

LEASES_FOLDER = "leases"

LeaseState = Literal["live", "stopped", "finished"]
_STATES = get_args(LeaseState)

_TYPES = {"run_id": str, "host": str, "process": str, "began_at": str, "beat": int, "beat_at": str}

_NAME = re.compile(rf"{LEASES_FOLDER}/epoch-[0-9]{{9}}\.json")


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
        is_damaged: The file could not be read: nothing but the epoch is known, and nobody could
            say that the run has ended.
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
    is_damaged: bool = False

    def described(self) -> str:
        """Return who holds it and since when, for a message."""
        if self.is_damaged:
            return f"a run whose lease {lease_name(self.epoch)} is damaged"
        return f"run {self.run_id} on {self.host}, which began {self.began_at}"


def latest_lease(storage: Storage) -> LeaseRecord | None:
    """Return the record of the latest epoch, None if there was no run yet."""
    names = _names(storage)
    return _read(storage, names[-1]) if names else None


def all_leases(storage: Storage) -> list[LeaseRecord]:
    """Return the records of all epochs, the oldest first."""
    return [_read(storage, name) for name in _names(storage)]


def earlier_leases(storage: Storage, epoch: int) -> list[LeaseRecord]:
    """Return the records before ``epoch`` whose workers may still commit, the latest first."""
    found: list[LeaseRecord] = []
    for earlier in range(epoch - 1, 0, -1):
        try:
            record = read_lease(storage, earlier)
        except FileNotFoundError:
            # Set aside by a repair, which has seen to its units; see ``repair``.
            continue
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
    values = asdict(record)
    del values["is_damaged"]
    return encode_json(values)


def _names(storage: Storage) -> list[str]:
    return [name for name in storage.list(LEASES_FOLDER, ".json") if _NAME.fullmatch(name)]


def _read(storage: Storage, name: str) -> LeaseRecord:
    """Return what a lease says; a damaged one is of a run that may live, see ``is_damaged``."""
    epoch = int(name.rpartition("-")[2].removesuffix(".json"))
    try:
        return read_json(storage, name, lambda values: _record(values, epoch))
    except DamagedFileError:
        # What it holds instead of a beat: if that changes, somebody writes it.
        content = storage.read(name)
        return LeaseRecord(
            epoch=epoch,
            run_id="",
            host="",
            process="",
            began_at="",
            beat_at=hashlib.sha256(content).hexdigest(),
            is_damaged=True,
        )


def _record(values: dict[str, Any], epoch: int) -> LeaseRecord:
    record = LeaseRecord(**values)
    has_types = all(isinstance(values[name], kind) for name, kind in _TYPES.items())
    if record.epoch != epoch or record.state not in _STATES or not has_types:
        raise ValueError("not the lease of this epoch")
    return record
