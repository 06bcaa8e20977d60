"""Columns of committed parts, a few rows at a time: memory does not grow with parts or row groups."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from trivet.errors import NotInStore, StoreDamaged
from trivet.parts.arrow import pa, pq
from trivet.parts.reader import RowGroup, completed, with_scale
from trivet.retrieval.visible import gone
from trivet.stores import ObjectStore
from trivet.values import Part

#: A part up to this size is fetched in one request; of a larger one only the columns that are asked for.
WHOLE_BYTES = 1 << 20
#: What is fetched of a column at once.
READ_BYTES = 8 << 20


class PartRows:
    """One open part. Not thread-safe."""

    def __init__(self, object_id: str, part: Part, file: _Counted) -> None:
        self._object_id = object_id
        self._part = part
        self._counted = file
        # Without a buffer, pyarrow fetches a whole column chunk before it decodes the first row.
        self._parquet = pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False)

    @property
    def row_groups(self) -> int:
        """Number of row groups."""
        return int(self._parquet.metadata.num_row_groups)

    @property
    def colbert_pooling(self) -> int:
        """Tokens that were pooled into one ColBERT vector; 1 where each has its own, or the leg is off."""
        found = (self._parquet.metadata.metadata or {}).get(b"trivet.colbert_pooling", b"")
        return int(found) if found.isdigit() else 1

    @property
    def bytes_read(self) -> int:
        """What was fetched so far."""
        return self._counted.count

    def batches(self, row_group: int, columns: Sequence[str], rows: int = 256) -> Iterator[tuple[int, RowGroup]]:
        """(number of its first row in the row group, at most `rows` rows), in order; columns as `row_groups` has them.

        Raises `StoreDamaged` for a file that does not hold these columns.
        """
        first, names = 0, with_scale(columns)
        with _damage(self._part.key):
            for batch in self._parquet.iter_batches(rows, row_groups=[row_group], columns=names):
                table = completed(pa.Table.from_batches([batch]), names)
                yield first, RowGroup(self._object_id, self._part, row_group, table)
                first += batch.num_rows


@contextmanager
def open_part(store: ObjectStore, object_id: str, part: Part) -> Iterator[PartRows]:
    """A committed part. Raises `StoreUnavailable` where it is gone, `StoreDamaged` where it is no Parquet file."""
    try:
        file = io.BytesIO(store.get(part.key)[0]) if part.bytes <= WHOLE_BYTES else store.open(part.key)
    except NotInStore:
        raise gone(part.key) from None
    with file:
        counted = _Counted(file)
        with _damage(part.key):
            rows = PartRows(object_id, part, counted)
        yield rows


@contextmanager
def _damage(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StoreDamaged(
            f"The part {key!r} cannot be read ({type(error).__name__}).", hint="Ingest its object again."
        ) from None


class _Counted(io.RawIOBase):
    """A seekable file that counts the bytes read from it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        body = self._file.read(size)
        self.count += len(body)
        return body
