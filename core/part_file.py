"""A file on its way: what has come of it survives interrupts and kills, and has its final name only when it is whole.

The bytes are in `<name>.part`; beside it `<name>.part.version` keeps the server's mark of the version that they belong
to (a strong ETag, or Last-Modified), so that a later run does not continue them with bytes of another version.
"""

import fcntl
import os
from pathlib import Path


class PartFileLockedError(Exception):
    """Another process is writing this part; the text says which file."""


class PartFile:
    """The part of one destination, open and locked inside a `with` block; nothing is written without its methods.

    On leaving the block an empty part is removed, any other stays for a later run.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".part")
        self.version_path = destination.with_name(destination.name + ".part.version")

    def __enter__(self) -> "PartFile":
        # Unbuffered, so that a killed process loses nothing that had come.
        self.file = open(self.path, "ab", buffering=0)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise PartFileLockedError(f"another process is writing {self.path}; wait until it has ended") from None
        except OSError:
            pass  # some cluster file systems have no locks; there two runs at once end in a failed check
        return self

    def __exit__(self, *_) -> None:
        if self.size() == 0 or self.destination.is_file():
            self.path.unlink(missing_ok=True)
            self.version_path.unlink(missing_ok=True)
        self.file.close()

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def version(self) -> str:
        """What If-Range needs; empty if the server gave no mark."""
        return self.version_path.read_text(encoding="latin-1") if self.version_path.is_file() else ""

    def restart(self, version: str = "") -> None:
        # In this order a kill in between leaves an empty part, never a part with the mark of another version.
        self.file.truncate(0)
        self.version_path.write_text(version, encoding="latin-1")

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:  # an unbuffered write may take less than it is given
            view = view[self.file.write(view) :]

    def finish(self) -> None:
        os.fsync(self.file.fileno())  # the name vouches for the content, after a power cut too
        os.replace(self.path, self.destination)
