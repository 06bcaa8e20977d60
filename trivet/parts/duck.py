"""Committed parts in DuckDB: one SQL macro that decodes ColBERT, and a connection that reads any of our stores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from trivet.errors import InvalidRequest, MissingDependency
from trivet.parts.arrow import pa
from trivet.parts.reader import current_manifests
from trivet.stores import ObjectStore
from trivet.stores.layout import Layout
from trivet.values import Manifest, Part

_MACRO = """\
-- 16 bits of IEEE 754 binary16 -> DOUBLE
CREATE OR REPLACE MACRO trivet_half(bits) AS
  (CASE WHEN bits >= 32768 THEN -1.0 ELSE 1.0 END)
  * (CASE (bits >> 10) & 31
       WHEN 0 THEN (bits & 1023) * pow(2.0, -24)
       WHEN 31 THEN (CASE WHEN (bits & 1023) = 0 THEN 'inf'::DOUBLE ELSE 'nan'::DOUBLE END)
       ELSE (1024 + (bits & 1023)) * pow(2.0, ((bits >> 10) & 31) - 25)
     END);
-- one ColBERT token vector (little-endian float16 in a BLOB) -> FLOAT[]
CREATE OR REPLACE MACRO trivet_vector(blob) AS
  list_transform(regexp_extract_all(hex(blob), '....'),
                 lambda pair: trivet_half(('0x' || pair[3:4] || pair[1:2])::INTEGER)::FLOAT);
-- the ColBERT column of one chunk -> FLOAT[][], one vector per token
CREATE OR REPLACE MACRO trivet_colbert(colbert) AS
  list_transform(colbert, lambda token: trivet_vector(token));
"""


def duckdb_macro() -> str:
    """SQL (DuckDB 1.3 or newer) that defines `trivet_colbert(colbert)` → `FLOAT[][]`, for any DuckDB session."""
    return _MACRO


def connect(store: ObjectStore, layout: Layout, *, spec_hash: str | None = None, view: str = "chunks") -> Any:
    """A `duckdb.DuckDBPyConnection` with the visible chunks of a collection as a view, and the macro defined.

    It reads through our own store, so it needs none of DuckDB's extensions (which are downloaded at run time) and no
    credentials in SQL; projections and filters are pushed down to the files. The view holds the files that were
    committed when it was made. Parts of another vector width (another model) cannot stand in the same view: then
    name a `spec_hash`. Raises `MissingDependency`, and `InvalidRequest` for such a mixture.
    """
    try:
        duckdb: Any = import_module("duckdb")
    except ImportError:
        raise MissingDependency(
            "Querying parts needs the package 'duckdb'.", hint="Install it: pip install 'trivet[search]'."
        ) from None
    manifests = [m for m in current_manifests(store, layout) if spec_hash in (None, m.spec_hash)]
    connection = duckdb.connect()
    connection.execute(_MACRO)
    if any(manifest.parts for manifest in manifests):
        connection.register(view, _dataset(store, manifests))
    else:
        raise InvalidRequest(
            f"Collection {layout.collection!r} has no committed chunks.", hint="Ingest something first."
        )
    return connection


def _dataset(store: ObjectStore, manifests: Sequence[Manifest]) -> Any:
    dataset: Any = import_module("pyarrow.dataset")
    first = {manifest.spec_hash: manifest.parts[0] for manifest in reversed(manifests) if manifest.parts}
    filesystem = store_filesystem(store, [part for manifest in manifests for part in manifest.parts])
    form = dataset.ParquetFileFormat(pre_buffer=True)
    schemas = {spec: form.inspect(part.key, filesystem).remove_metadata() for spec, part in first.items()}
    if len({schema.field("dense").type for schema in schemas.values()}) > 1 or len(set(map(str, schemas.values()))) > 1:
        raise InvalidRequest(
            "The collection holds vectors of several widths.", hint=f"Choose a spec: {', '.join(sorted(schemas))}."
        )
    keys = [part.key for manifest in manifests for part in manifest.parts]
    return dataset.dataset(keys, schema=next(iter(schemas.values())), format=form, filesystem=filesystem)


def store_filesystem(store: ObjectStore, parts: Sequence[Part]) -> Any:
    """A read-only `pyarrow.fs.FileSystem` of exactly these parts, on any of our stores."""
    fs: Any = import_module("pyarrow.fs")
    sizes = {part.key: part.bytes for part in parts}

    class Handler(fs.FileSystemHandler):  # type: ignore[misc] # pyarrow ships no types
        def get_type_name(self) -> str:
            return "trivet"

        def normalize_path(self, path: str) -> str:
            return path

        def get_file_info(self, paths: list[str]) -> list[Any]:
            return [
                fs.FileInfo(path, fs.FileType.File, size=sizes[path])
                if path in sizes
                else fs.FileInfo(path, fs.FileType.NotFound)
                for path in paths
            ]

        def get_file_info_selector(self, selector: Any) -> list[Any]:
            return [info for info in self.get_file_info(list(sizes)) if info.path.startswith(selector.base_dir)]

        def open_input_file(self, path: str) -> Any:
            return pa.PythonFile(store.open(path), mode="r")

        def open_input_stream(self, path: str) -> Any:
            return self.open_input_file(path)

        def _read_only(self, *_: object) -> None:
            raise PermissionError("parts are read-only")

        create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _read_only
        move = copy_file = open_output_stream = open_append_stream = _read_only

    return fs.PyFileSystem(Handler())
