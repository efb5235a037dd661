"""Keep freed memory in the process: frames and batches are large blocks, made and freed many times a second."""

import ctypes
import sys

# Numbers of glibc's <malloc.h>
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST = 1 << 30


def reuse_freed_memory() -> None:
    """Let the C library give out freed blocks again and not return them to the system at once.

    By default glibc maps every block of more than some hundred kB anew, and each new page costs a fault: half of the
    time that the augmentation of a batch takes on a virtual machine, a tenth of the encoder's. Elsewhere than on
    Linux with glibc this does nothing. Memory that was needed once is kept until the process ends.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
