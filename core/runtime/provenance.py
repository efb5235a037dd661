"""What a folder's outputs were made of, so that what is done is not done again and nothing old is taken for new."""

import contextlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from core.runtime.files import write_json

NAME = ".finished.json"


class Finished:
    """What is known of a folder's outputs, kept in a file beside them.

    Args:
        folder: of the outputs.
        made_of: the source's state and the settings, now; plain values.

    Attributes:
        path: the file.
        fault: what was wrong with the source when the outputs were made; None where nothing was.
        impossible: name of an output that could not be made of it -> why.
    """

    def __init__(self, folder: Path, made_of: Mapping):
        self.path, self.made_of = folder / NAME, json.loads(json.dumps(made_of))
        self.fault: str | None = None
        self.impossible: dict[str, str] = {}
        self._done: set[str] = set()
        self._begun: set[str] = set()
        self._outdated: set[str] = set()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(self.path.read_text(encoding="utf-8"))
            if before["made_of"] == self.made_of:
                done, begun, impossible = set(before["done"]), set(before["begun"]), dict(before["impossible"])
                self._done, self._begun, self.impossible, self.fault = done, begun, impossible, before["fault"]
            else:
                self._outdated = {*before["done"], *before["begun"]}

    def has(self, files: Collection[Path]) -> bool:
        """Whether all these outputs are there, or known to be impossible."""
        return all(file.name in self.impossible or (file.name in self._done and file.is_file()) for file in files)

    def faults(self, files: Collection[Path]) -> list[str]:
        """What was wrong with the source, and why some of these outputs are not there; each reason once."""
        reasons = [self.fault] if self.fault else []
        return list(dict.fromkeys([*reasons, *(self.impossible[f.name] for f in files if f.name in self.impossible)]))

    def begin(self, files: Collection[Path]) -> None:
        """Get ready for writing outputs: remove those of other settings, or of another state of the source.

        From here on, whatever interrupts the writing, no output is taken for one of other settings.
        """
        for name in self._outdated:
            (self.path.parent / Path(name).name).unlink(missing_ok=True)
        self._outdated = set()
        self._begun |= {file.name for file in files}
        self._write()

    def end(self, files: Collection[Path], fault: str | None, impossible: Mapping[str, str]) -> None:
        """Remember these outputs.

        Args:
            files: all that were asked for.
            fault: what is wrong with the source, where something is.
            impossible: name of an output that could not be made -> why.
        """
        names = {file.name for file in files}
        kept = {name: reason for name, reason in self.impossible.items() if name not in names}
        self.fault, self.impossible = fault, kept | dict(impossible)
        self._done |= names - set(self.impossible)
        self._begun -= names
        self._write()

    def _write(self) -> None:
        state = {"made_of": self.made_of, "done": sorted(self._done), "begun": sorted(self._begun)}
        write_json(self.path, state | {"impossible": self.impossible, "fault": self.fault})
