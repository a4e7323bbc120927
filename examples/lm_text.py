"""The corpus: a folder of texts, of which some are held out whole."""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from commands import BadInput

HELD_OUT = 0.05
"""Share of the files that nothing is learned from, neither merges nor weights."""
NOT_PROSE = frozenset({
    "site-packages", "dist-packages",  # other people's
    "test", "tests", "idle_test", "__pycache__",
    "encodings", "pydoc_data",  # tables, and documentation made by a program
})  # fmt: skip
GENERATED = "_sysconfigdata"


@dataclass(frozen=True)
class Corpus:
    """Documents to train on, and documents held out."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    skipped: int
    """Files that are not UTF-8."""
    digest: str
    """SHA-256 of all documents in their order: whether two runs read the same."""


def standard_library() -> Path:
    """The folder of the sources that every Python brings."""
    return Path(sysconfig.get_paths()["stdlib"])


def read_corpus(folder: Path | None, suffix: str, seed: int) -> Corpus:
    """The texts in a folder and the folders below it, or of the standard library.

    Args:
        folder: None is the standard library without its tests and tables.
        suffix: how the files' names end.
        seed: decides which files are held out.

    Raises:
        BadInput: there is no such folder, or fewer than two documents are in it.
    """
    root = standard_library() if folder is None else folder
    if not root.is_dir():
        raise BadInput(f"There is no folder {root}; expected one with *{suffix} files.")
    names = (path.relative_to(root) for path in root.rglob(f"*{suffix}") if path.is_file())
    kept = [name for name in names if folder is not None or _is_prose(name)]
    documents, skipped = _read(root, sorted(kept, key=Path.as_posix))
    if len(documents) < 2:
        raise BadInput(
            f"{len(documents)} documents *{suffix} in {root} (empty ones do not count, and "
            f"{skipped} are not UTF-8); expected two or more, to train on and to hold out."
        )
    return _split(documents, skipped, seed)


def _is_prose(name: Path) -> bool:
    return not NOT_PROSE.intersection(name.parts) and not name.name.startswith(GENERATED)


def _read(root: Path, names: Iterable[Path]) -> tuple[list[str], int]:
    """The documents that are not empty, and how many files are not UTF-8."""
    documents, skipped = [], 0
    for name in names:
        try:
            # Bytes, not text: a line end that was translated would be one byte less.
            documents.append((root / name).read_bytes().decode())
        except UnicodeDecodeError:
            skipped += 1
        except OSError as error:
            raise BadInput(f"{root / name} cannot be read: {error.strerror}.") from error
    return [document for document in documents if document], skipped


def _split(documents: list[str], skipped: int, seed: int) -> Corpus:
    shuffled = random.Random(seed).sample(documents, len(documents))
    first = max(1, round(HELD_OUT * len(documents)))
    train, held_out = tuple(shuffled[first:]), tuple(shuffled[:first])
    digest = hashlib.sha256("\0".join(train + held_out).encode()).hexdigest()
    return Corpus(train, held_out, skipped, digest)
