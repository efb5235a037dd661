"""Files that appear whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.runtime.errors import UserError

PART = ".part-"  # how names of unfinished files begin
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` if the block ends well, remove it if not.

    The rename is atomic, so another process or a later run finds the old file, the new one, or none; never half
    a file. A full disk is reported as a UserError naming the file.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give another output path")
    except OSError as error:  # a name that is too long
        raise UserError(f"cannot write {path}: {error.strerror}; give another output path") from error
    try:
        handle, name = tempfile.mkstemp(prefix=PART, suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write into {path.parent}: {error.strerror}; give another output path") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; outputs get the permissions any other new file would get.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise UserError(f"no space left to write {path}: free some space and run the same command again") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def finished_files(folder: str | Path, suffix: str) -> list[Path]:
    """The files of a folder with an ending, sorted, but for what a killed process left half written."""
    return sorted(path for path in Path(folder).glob(f"*{suffix}") if not path.name.startswith(PART))


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents; a UserError says which path stands in the way."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path}: {error.strerror}; give another output path") from error
    return path


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def printable(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 become "�"."""
    return os.fsencode(name).decode("utf-8", "replace")


def _umask() -> int:
    umask = os.umask(0)  # it can only be read by setting it
    os.umask(umask)
    return umask


def fingerprint(path: str | Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, hexadecimal: of a download, or of what an output was made of."""
    with Path(path).open("rb") as file:
        # Not for security: MD5 is what AVA's files have, and hardened builds refuse it otherwise.
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
