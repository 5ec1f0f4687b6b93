"""An output as WebDataset shards: tar files of images, captions and everything else about them.

A sample is ``KEY.png``, ``KEY.txt`` (the prompt) and ``KEY.json`` (the rest of its row). Samples
are sorted by key and files carry no times, so the same rows always give the same bytes. A shard is
closed when it is large enough, and only one is in memory.

A folder that was exported into before holds the new shards alone when the export has ended: those
that an earlier one listed and this one did not write are removed. What others put there stays.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pipelines.outputs.shard_list import ShardList, own_shards, shard_name, write_shard_list
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows
from pipelines.units.schemas import ROWS

SHARD_BYTES = 256 * 1024**2
_ROWS_AT_ONCE = 256
_JSON_COLUMNS = ("sampler_json", "carried_json", "versions_json")
_COLUMNS = [name for name in ROWS.names if name != "image"]

Sample = tuple[str, Mapping[str, bytes]]
"""Key, and content by ending."""


def write_webdataset(
    storage: Storage,
    target: Storage,
    *,
    damages: Damages,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[int, int]:
    """Write the images of an output as shards; return how many images and shards.

    Args:
        storage: The output.
        target: Where the shards go; those of earlier exports that are not written again go away.
        shard_bytes: A shard is closed when it holds as much.
        damages: Gets what is damaged; rows whose image is lost are left out.

    Raises:
        PlaceError: The target holds shards that no export has listed as its own.
        StorageError: A place cannot be read or written now.
    """
    known, written = own_shards(target), list[str]()
    num_images = 0
    if known:
        write_shard_list(target, ShardList(finished=False, shards=tuple(sorted(known))))
    samples = _samples(storage, damages)
    for content, num_samples in webdataset_shards(samples, shard_bytes=shard_bytes):
        name = shard_name(len(written))
        if name not in known:
            # Listed before it is there: one that a killed export left must be known as its own.
            known.add(name)
            write_shard_list(target, ShardList(finished=False, shards=tuple(sorted(known))))
        target.put(name, content)
        written.append(name)
        num_images += num_samples
    for name in sorted(known.difference(written)):
        target.delete(name)
    # The list must not survive what it denies.
    target.settle("")
    write_shard_list(target, ShardList(finished=True, shards=tuple(written), num_images=num_images))
    return num_images, len(written)


def webdataset_shards(
    samples: Iterable[Sample], *, shard_bytes: int
) -> Iterator[tuple[bytes, int]]:
    """Yield (tar file, number of samples) of every shard; none without samples."""
    sink, num_samples = io.BytesIO(), 0
    tar = _open(sink)
    for key, parts in samples:
        for ending, content in sorted(parts.items()):
            entry = tarfile.TarInfo(f"{key}.{ending}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        num_samples += 1
        if sink.tell() >= shard_bytes:
            tar.close()
            yield sink.getvalue(), num_samples
            sink, num_samples = io.BytesIO(), 0
            tar = _open(sink)
    tar.close()
    if num_samples:
        yield sink.getvalue(), num_samples


def _open(sink: io.BytesIO) -> tarfile.TarFile:
    return tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT)


def _samples(storage: Storage, damages: Damages) -> Iterator[Sample]:
    rows = read_output_rows(storage, _COLUMNS, skip=damages.skip).sort_by("key")
    for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            image = damages.image(storage, row)
            if image is not None:
                yield (
                    row["key"],
                    {
                        "png": image,
                        "txt": row["prompt"].encode(),
                        "json": json.dumps(_described(row), sort_keys=True).encode(),
                    },
                )


def _described(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row as JSON says it, texts that are JSON themselves opened."""
    values = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }
    for name in _JSON_COLUMNS:
        values[name.removesuffix("_json")] = json.loads(values.pop(name) or "null")
    return values
