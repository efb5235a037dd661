"""Two hosts: network namespaces of this machine with a link between them where it may make some, else its loopback."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """Where a process is run.

    Attributes:
        address: of the host.
        interface: the network interface that has it.
        begin: what a command begins with that is run there; nothing on the loopback.
    """

    address: str
    interface: str
    begin: tuple[str, ...] = ()


LOOPBACK = Host("127.0.0.1", "lo" if sys.platform == "linux" else "lo0")


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts; what is left running on them is killed in the end."""
    names = [f"host{number}-{os.getpid()}" for number in (1, 2)]
    addresses = ["10.97.0.1", "10.97.0.2"]
    made = []
    try:
        try:
            for name in names:
                ip("netns", "add", name)
                made.append(name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("link", "add", "link0", "netns", names[0], "type", "veth", "peer", "name", "link0", "netns", names[1])
            for name, address in zip(names, addresses, strict=True):
                ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
                ip("-n", name, "link", "set", "link0", "up")
        except (OSError, subprocess.CalledProcessError):
            yield LOOPBACK, LOOPBACK
        else:
            enter = shutil.which("ip"), "netns", "exec"
            one, other = (Host(to, "link0", (*enter, name)) for to, name in zip(addresses, names, strict=True))
            yield one, other
    finally:
        for name in made:
            for pid in ip("netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip("netns", "delete", name)


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
