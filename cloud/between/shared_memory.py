"""Memory of two processes, without a name: it ends with the last of them, however that ends.

It is an anonymous file of Linux (`memfd_create`), handed on as a descriptor. So it takes no room of
/dev/shm, which is small in containers, and nothing is left where a process is killed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

import numpy as np
from splitpoint.codec import Array


class SharedMemory:
    """`size` bytes behind the descriptor `fd`, which is closed with it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._map = mmap.mmap(fd, self.size)

    @classmethod
    def create(cls, size: int) -> SharedMemory:
        """New memory. Pages of it are taken from the system when they are first written."""
        fd = os.memfd_create("splitpoint-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            # Neither process can make it shorter under the other: reading beyond the end would kill
            # that one. Other systems lack these names, and import this with all of the worker.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def array(self, offset: int, shape: Sequence[int], dtype: np.dtype[np.generic]) -> Array:
        """A view; raises `ValueError` or `TypeError` where it would not lie within."""
        if offset < 0:  # which numpy takes, and reads what lies before
            raise ValueError(f"an offset of {offset}")
        found: Array = np.ndarray(shape, dtype, self._map, offset)
        return found

    def close(self) -> None:
        """Once. The memory itself goes with the last view of it; there are no new ones."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            del self._map  # what still refers to this may be garbage for long
