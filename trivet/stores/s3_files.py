"""Files as boto3 and pyarrow want them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from trivet.stores import Stored


class Ranges(io.RawIOBase):
    """One version of an object as a seekable file."""

    def __init__(self, stored: Stored, read: Callable[[Stored, int, int], bytes]) -> None:
        super().__init__()
        self._read = read
        self._stored = stored
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stored.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what BufferedReader passes
        start, end = self._position, min(self._position + len(buffer), self._stored.size)
        if end <= start:
            return 0
        body = self._read(self._stored, start, end)
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)


class Unclosed:
    """A file that boto3 cannot close: it belongs to the caller."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Leave it open."""
