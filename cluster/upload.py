"""What ``ray job submit --working-dir`` would send, counted before it is sent.

Ray packs the folder into an uncompressed archive, and its job server refuses one of 100 MiB with an
error that names no file. So: which files would go, how large they are together, which are largest.
``python -m cluster.upload [DIR]`` prints it and exits 2 if it is too much.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from cluster.ignore_patterns import ignored_by

LIMIT_BYTES = 100 * 1024**2
MAX_LISTED = 10
TOO_LARGE = 2

RUNTIME_ENV = Path(__file__).with_name("runtime_env.yaml")
RAY_EXCLUDES = (".git", ".venv", "venv", "__pycache__")
"""What Ray leaves out by itself."""

_IGNORE_FILES = (".gitignore", ".rayignore")
_MIB = 1024**2
# Of one file in a zip archive: two headers, each with the name.
_HEADERS_BYTES = 30 + 46
_END_BYTES = 22


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What would be sent.

    Attributes:
        folder: The working directory.
        sizes: Bytes of each file, by its path in the folder, in order of path.
    """

    folder: Path
    sizes: dict[str, int]

    @property
    def archive_bytes(self) -> int:
        """Size of the archive that Ray makes."""
        names = sum(len(name.encode()) for name in self.sizes)
        headers = len(self.sizes) * _HEADERS_BYTES + 2 * names + _END_BYTES
        return sum(self.sizes.values()) + headers

    @property
    def fits(self) -> bool:
        """Whether Ray takes it."""
        return self.archive_bytes < LIMIT_BYTES


def read_excludes(path: Path = RUNTIME_ENV) -> tuple[str, ...]:
    """Return the excludes of a runtime environment file, Ray's own before them.

    Raises:
        ValueError: They are no list of texts.
    """
    values = yaml.safe_load(path.read_text())
    found: Any = values.get("excludes", []) if isinstance(values, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(item, str) for item in cast("list[object]", found)
    ):
        raise ValueError(f"{path} should be a mapping whose excludes are a list of patterns")
    return (*RAY_EXCLUDES, *cast("list[str]", found))


def measure_upload(folder: Path, excludes: Sequence[str]) -> Upload:
    """Return what Ray would send of ``folder``.

    Args:
        folder: The working directory.
        excludes: Patterns of what stays; those of .gitignore and .rayignore files count too.
    """
    root = folder.absolute()
    sizes = {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in _sent(root, [_below(root, excludes)])
    }
    return Upload(folder=root, sizes=dict(sorted(sizes.items())))


def _sent(path: Path, rules: list[Callable[[Path], bool]]) -> Iterator[Path]:
    rules = rules + [
        _below(path, (path / name).read_text().splitlines())
        for name in _IGNORE_FILES
        if (path / name).is_file()
    ]
    if any(is_ignored(path) for is_ignored in rules):
        return
    if path.is_dir():
        for child in path.iterdir():
            yield from _sent(child, rules)
    elif path.is_file():
        yield path


def _below(root: Path, patterns: Sequence[str]) -> Callable[[Path], bool]:
    is_ignored = ignored_by(patterns)
    return lambda path: is_ignored(path.relative_to(root).as_posix())


def described(upload: Upload) -> str:
    """Return the count, the size and the largest entries in words."""
    verdict = "fits" if upload.fits else "is too much for"
    size = f"{len(upload.sizes):,} files, {upload.archive_bytes / _MIB:.1f} MiB"
    lines = [f"{upload.folder}: {size}, which {verdict} Ray's {LIMIT_BYTES // _MIB} MiB"]
    largest = sorted(upload.sizes.items(), key=lambda entry: -entry[1])[:MAX_LISTED]
    lines.extend(f"  {size / _MIB:8.2f} MiB  {name}" for name, size in largest)
    if not upload.fits:
        lines.append(
            f"name what need not go under excludes in {RUNTIME_ENV.name}, and put models and LoRAs "
            "on a disk or in a bucket that all machines read"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Describe the upload of a folder (this one, if none is named); return the exit code."""
    folder = Path(arguments[0] if arguments else ".")
    if not folder.is_dir():
        print(f"{folder} is not a folder; name the working directory", file=sys.stderr)
        return TOO_LARGE
    upload = measure_upload(folder, read_excludes())
    print(described(upload))
    return 0 if upload.fits else TOO_LARGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
