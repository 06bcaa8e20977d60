"""Committed parts: through `current.json` and the manifest, never through a listing of files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from trivet.encoder import Legs
from trivet.errors import InvalidRequest, NotInStore, StoreDamaged
from trivet.parts.arrow import np, pa, pq
from trivet.parts.outputs import dequantise
from trivet.parts.schema import FIELDS, SCALE_TYPE
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store
from trivet.stores.layout import Layout
from trivet.supervisor.endpoints import connected_settings
from trivet.values import Current, Manifest, Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

_T = TypeVar("_T")
_S = TypeVar("_S")
_IO_THREADS = 8


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Some rows of one committed part, at most 64 MiB of plain values (or one row that alone has more).

    `table` is a `pyarrow.Table` with the columns that were asked for, and `colbert_scale` where `colbert` is one of
    them; the properties decode the legs, without a copy but for int8.
    """

    object_id: str
    part: Part
    #: Number of the row group in its part, from 0.
    index: int
    table: Any

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def dense(self) -> NDArray[np.float32] | None:
        """[n, d] float32, or None where the leg is off or was not asked for."""
        column = self._column("dense")
        if column is None:
            return None
        numbers: NDArray[np.float32] = _view(column.flatten(), "<f4")
        return numbers.reshape(len(column), column.type.list_size)

    def sparse(self, row: int) -> tuple[NDArray[np.uint32], NDArray[np.float32]] | None:
        """Token ids (ascending) and weights of one row, or None where the leg is off or was not asked for."""
        ids, weights = self._column("sparse_ids"), self._column("sparse_weights")
        if ids is None or weights is None:
            return None
        return _view(ids[row].values, "<u4"), _view(weights[row].values, "<f4")

    def colbert(self, row: int) -> NDArray[np.float16] | NDArray[np.float32] | None:
        """[vectors, d] of one row, or None where the leg is off or was not asked for.

        float16 as it is stored, or float32 where int8 is stored; one vector per token, or fewer where the collection
        pools them (`trivet.colbert_pooling` in the file's metadata).
        """
        column, scales = self._column("colbert"), self._column("colbert_scale")
        if column is None:
            return None
        found: NDArray[Any] = _vectors(column[row].values, None if scales is None else scales[row].values)
        return found

    def legs(self) -> Legs:
        """All rows as `Legs`; a leg that is off or was not asked for has width 0 and no terms."""
        n = len(self)
        dense, ids, weights = self.dense, self._column("sparse_ids"), self._column("sparse_weights")
        colbert, scales = self._column("colbert"), self._column("colbert_scale")
        none = np.zeros(n + 1, np.int64)
        return Legs(
            dense=np.zeros((n, 0), np.float32) if dense is None else dense,
            sparse_ids=np.zeros(0, np.uint32) if ids is None else _view(ids.flatten(), "<u4"),
            sparse_weights=np.zeros(0, np.float32) if weights is None else _view(weights.flatten(), "<f4"),
            sparse_offsets=none if ids is None else _offsets(ids),
            colbert=np.zeros((0, 0), np.float16)
            if colbert is None
            else _vectors(colbert.flatten(), None if scales is None else scales.flatten()),
            colbert_offsets=none if colbert is None else _offsets(colbert),
        )

    def _column(self, name: str) -> Any:
        if name not in self.table.column_names:
            return None
        chunks = self.table.column(name).chunks
        array = chunks[0] if len(chunks) == 1 else self.table.column(name).combine_chunks()
        # A leg that is off is null in every row.
        return None if len(array) and array.null_count == len(array) else array


def _view(array: Any, dtype: str) -> Any:
    """The numbers of a primitive array as they lie in memory."""
    size = int(dtype[-1])
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros(0, dtype)
    return np.frombuffer(buffer, dtype, count=len(array), offset=array.offset * size)


def _vectors(array: Any, scales: Any) -> Any:
    """Values of a colbert column, and of its scales where it is int8 → [n, d] float16, or float32 of int8."""
    if pa.types.is_fixed_size_list(array.type):
        return _view(array.flatten(), "<f2").reshape(len(array), array.type.list_size)
    if scales is None:
        return _bytes(array).view("<f2")
    return dequantise(_bytes(array).view(np.int8), _view(scales, "<f4"))


def _bytes(array: Any) -> Any:
    """fixed_size_binary[w] → [n, w] uint8, as it lies in memory."""
    width, buffer = array.type.byte_width, array.buffers()[1]
    if buffer is None:
        return np.zeros((0, width), np.uint8)
    return np.frombuffer(buffer, np.uint8, len(array) * width, array.offset * width).reshape(len(array), width)


def _offsets(array: Any) -> NDArray[np.int64]:
    offsets: NDArray[np.int64] = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[:1]


# ---------------------------------------------------------------- what is committed


def read_current(store: ObjectStore, layout: Layout, object_id: str) -> Manifest | None:
    """The manifest that readers see for an object, or None where there is none or it was deleted."""
    key = layout.current(object_id)
    seen = -1
    while True:
        try:
            current = _parse(Current, key, store.get(key)[0])
        except NotInStore:
            return None
        if current.tombstone:
            return None
        try:
            return _parse(Manifest, current.manifest, store.get(current.manifest)[0])
        except NotInStore:
            # It was replaced and purged between the two reads; only ever upward, so this ends.
            if current.generation <= seen:
                raise StoreDamaged(f"{key!r} names a manifest that is not there.") from None
            seen = current.generation


def _parse(kind: type[_T], key: str, body: bytes) -> _T:
    try:
        value: _T = kind.model_validate_json(body)  # type: ignore[attr-defined] # Manifest or Current
    except ValidationError as error:
        raise StoreDamaged(f"{key!r} cannot be read: {error.error_count()} fields are wrong.") from None
    return value


def current_manifests(store: ObjectStore, layout: Layout, *, threads: int = _IO_THREADS) -> Iterator[Manifest]:
    """The visible manifest of every object of a collection, deleted ones left out, in the order of the listing.

    Each manifest is as it was when it was read; a part it names stays readable while retention allows.
    """
    listed = store.list(layout.objects(), delimiter="/")
    objects = (object_id for found in listed if (object_id := layout.object_of(found.key)) is not None)
    for manifest in _ahead(objects, lambda object_id: read_current(store, layout, object_id), threads):
        if manifest is not None:
            yield manifest


def collection_files(store: ObjectStore, layout: Layout) -> Iterator[Part]:
    """Every Parquet file that is visible now, object by object."""
    for manifest in current_manifests(store, layout):
        yield from manifest.parts


def _ahead(items: Iterable[_S], call: Callable[[_S], _T], threads: int) -> Iterator[_T]:
    """`map` in threads, in order, never more than `2 * threads` items ahead of the reader."""
    with ThreadPoolExecutor(threads, thread_name_prefix="trivet-read") as pool:
        waiting: deque[Future[_T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# ---------------------------------------------------------------- rows


def with_scale(columns: Iterable[str]) -> list[str]:
    """The columns, and `colbert_scale` where `colbert` is one of them: int8 cannot be read without it."""
    names = list(columns)
    return [*names, "colbert_scale"] if "colbert" in names and "colbert_scale" not in names else names


def completed(table: Any, names: Sequence[str]) -> Any:
    """The columns `names` of a `pyarrow.Table`; `colbert_scale` is null where the part is older than that column."""
    if "colbert_scale" in names and "colbert_scale" not in table.column_names:
        table = table.append_column("colbert_scale", pa.nulls(len(table), SCALE_TYPE))
    return table.select(names)


def row_groups(
    store: ObjectStore, object_id: str, part: Part, *, columns: Sequence[str] | None = None
) -> Iterator[RowGroup]:
    """One part, row group by row group: no more than one is in memory, and only `columns` are fetched."""
    names = with_scale(FIELDS if columns is None else columns)
    unknown = [name for name in names if name not in FIELDS]
    if unknown:
        raise InvalidRequest(f"Parts have no column {unknown[0]!r}.", hint=f"There are {', '.join(FIELDS)}.")
    with store.open(part.key) as file:
        try:
            # One row group is one read: columns that lie side by side are fetched together.
            parquet = pq.ParquetFile(file, pre_buffer=True)
            if parquet.metadata.num_rows != part.rows:
                raise StoreDamaged(f"{part.key!r} has {parquet.metadata.num_rows} rows, its manifest says {part.rows}.")
            for index in range(parquet.num_row_groups):
                table = parquet.read_row_group(index, columns=names, use_threads=False)
                yield RowGroup(object_id, part, index, completed(table, names))
        except (pa.ArrowException, OSError) as error:
            raise StoreDamaged(f"{part.key!r} is no part that can be read ({type(error).__name__}).") from None


def read_parts(
    collection: str,
    *,
    namespace: str | None = None,
    object_ids: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    settings: Settings | None = None,
    store: ObjectStore | None = None,
) -> Iterator[RowGroup]:
    """Every visible chunk of a collection, row group by row group, in bounded memory.

    Without `object_ids` all objects; without `columns` all columns (see `trivet.parts.schema.FIELDS`). Settings and
    store are those of the environment, or of what `trivet up` runs here. Raises what the store raises,
    `InvalidRequest` for a column that is not there, and `StoreDamaged` for a file that is not what its manifest says.

        for group in trivet.read_parts("docs", columns=["chunk_id", "dense"]):
            scores = group.dense @ query
    """
    settings = settings or connected_settings(Settings.load())
    store = store or open_store(settings)
    layout = Layout.of(settings, namespace or settings.namespace, collection)
    if object_ids is None:
        manifests: Iterable[Manifest] = current_manifests(store, layout)
    else:
        found = _ahead(object_ids, lambda object_id: read_current(store, layout, object_id), _IO_THREADS)
        manifests = (manifest for manifest in found if manifest is not None)
    for manifest in manifests:
        for part in manifest.parts:
            yield from row_groups(store, manifest.object_id, part, columns=columns)
