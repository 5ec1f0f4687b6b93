"""Images that committed rows lack, found by name and size, and written again from their units."""

from collections.abc import Callable, Collection, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

from manifests.tables.arrow_functions import arrow
from manifests.tables.text_numbers import deal, dealing_spool
from pipelines.ledger.ledger import Ledger
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGES_FOLDER, restore_images_of, say_restored
from pipelines.units.committed_unit import rows_name

Note = Callable[[str], None]

_SIZES = pa.schema([("key", pa.string()), ("image_size", pa.int64())])
_NAMES_AT_ONCE = 8192


def damaged_images(storage: Storage, ledger: Ledger) -> list[str]:
    """Return the keys of committed rows whose image file is missing or of another size, sorted.

    Sizes come with the names, so nothing is opened. The ledger is older than the list of files. So
    what was just made is not among them where images are written before their rows are committed;
    where they are written after, see ``shared_images``. Names and rows are dealt by key and
    compared one part at a time.
    """
    present = dealing_spool(_SIZES, "the names of images")
    made = dealing_spool(_SIZES, "the committed rows")
    for table in _image_tables(storage):
        deal(present, table)
    for table in ledger.made_tables():
        deal(made, table)
    damaged: list[str] = []
    for partition in made.filled():
        files, rows = present.partition(partition), made.partition(partition)
        places = arrow.index_in(rows["key"], value_set=files["key"])
        sizes = arrow.fill_null(files["image_size"].take(places), 0)
        is_other = arrow.not_equal(sizes, arrow.coalesce(rows["image_size"], sizes))
        is_whole = arrow.and_(arrow.greater(sizes, 0), arrow.invert(is_other))
        # A row that is doubled has its image if that is one of the two.
        whole = rows["key"].filter(is_whole)
        left = rows["key"].filter(arrow.invert(is_whole)).unique()
        damaged += left.filter(arrow.invert(arrow.is_in(left, value_set=whole))).to_pylist()
    return sorted(damaged)


def _image_tables(storage: Storage) -> Iterator[pa.Table]:
    """Yield key and size of the image files."""
    left = storage.sizes(IMAGES_FOLDER)
    while some := list(islice(left, _NAMES_AT_ONCE)):
        names, sizes = zip(*some, strict=True)
        keys = [name.rpartition("/")[2].removesuffix(".png") for name in names]
        yield pa.table({"key": keys, "image_size": np.array(sizes, np.int64)}, schema=_SIZES)


def restore_lost_images(ledger: Ledger, keys: Collection[str], *, note: Note) -> None:
    """Write the image files of ``keys`` again from their units, and say so in a sentence.

    Raises:
        DamagedFileError: A unit that holds one is damaged.
    """
    wanted = set(keys)
    restored: list[str] = []
    for table in ledger.unit_tables(("unit_id", "keys")) if wanted else ():
        for unit_id, here in _holding(table, wanted):
            restored += restore_images_of(ledger.storage, rows_name(unit_id), here)
            wanted -= here
    say_restored(ledger.storage, restored, note)


def _holding(units: pa.Table, wanted: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    """Yield the units that hold keys that are still wanted, and which these are."""
    keys = arrow.list_flatten(units["keys"])
    is_wanted = arrow.is_in(keys, value_set=pa.array(list(wanted), pa.string()))
    places = arrow.list_parent_indices(units["keys"].combine_chunks()).filter(is_wanted).to_pylist()
    for place in dict.fromkeys(places):
        here = {key for key in units["keys"][place].as_py() if key in wanted}
        yield units["unit_id"][place].as_py(), here
