"""Images that committed rows lack, found by name and size, and written again from their units."""

from collections.abc import Callable, Collection

from pipelines.ledger.ledger import Ledger
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import IMAGES_FOLDER, restore_images_of, say_restored
from pipelines.units.committed_unit import ROWS_FOLDER, read_unit

Note = Callable[[str], None]


def damaged_images(storage: Storage, ledger: Ledger) -> list[str]:
    """Return the keys of committed rows whose image file is missing or of another size, sorted.

    Sizes come with the names, so nothing is opened. The ledger is older than the list of files. So
    what was just made is not among them where images are written before their rows are committed;
    where they are written after, see ``shared_images``.
    """
    present = {
        name.rpartition("/")[2].removesuffix(".png"): size
        for name, size in storage.sizes(IMAGES_FOLDER)
    }
    return sorted(
        key
        for key in ledger.made
        if not present.get(key) or present[key] != ledger.image_sizes.get(key, present[key])
    )


def restore_lost_images(storage: Storage, keys: Collection[str], *, note: Note) -> None:
    """Write the image files of ``keys`` again from their units, and say so in a sentence.

    Raises:
        DamagedFileError: A unit that holds one is damaged.
    """
    wanted = set(keys)
    restored: list[str] = []
    for name in storage.list(ROWS_FOLDER, ".parquet"):
        if not wanted:
            break
        here = wanted.intersection(read_unit(storage, name)[0])
        restored += restore_images_of(storage, name, here)
        wanted -= here
    say_restored(storage, restored, note)
