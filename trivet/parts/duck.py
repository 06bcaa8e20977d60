"""Committed parts in DuckDB: an SQL macro that decodes ColBERT, and a connection that reads any of our stores."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from trivet.errors import InvalidRequest, MissingDependency
from trivet.parts.arrow import pa
from trivet.parts.reader import current_manifests
from trivet.parts.schema import SCALE_TYPE, element
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
-- one ColBERT token vector (int8 in a BLOB) -> INTEGER[]
CREATE OR REPLACE MACRO trivet_integers(blob) AS
  list_transform(regexp_extract_all(hex(blob), '..'),
                 lambda byte: (('0x' || byte)::INTEGER + 128) % 256 - 128);
-- the two ColBERT columns of one chunk, however they are stored -> FLOAT[][], one vector per token (or cluster of them)
CREATE OR REPLACE MACRO trivet_colbert(colbert, colbert_scale) AS
  (CASE WHEN typeof(colbert) <> 'BLOB[]' THEN colbert::FLOAT[][]
        WHEN colbert_scale IS NULL THEN list_transform(colbert::BLOB[], lambda token: trivet_vector(token))
        ELSE list_transform(colbert::BLOB[], lambda token, i:
               list_transform(trivet_integers(token), lambda number: number::FLOAT * colbert_scale[i]::FLOAT))
   END);
"""


def duckdb_macro() -> str:
    """SQL (DuckDB 1.3 or newer) that defines `trivet_colbert(colbert, colbert_scale)` → `FLOAT[][]`.

    For any DuckDB session; it decodes every way in which a collection may store ColBERT. Parts that are older than the
    column `colbert_scale` take NULL in its place.
    """
    return _MACRO


def connect(store: ObjectStore, layout: Layout, *, spec_hash: str | None = None, view: str = "chunks") -> Any:
    """A `duckdb.DuckDBPyConnection` with the visible chunks of a collection as a view, and the macro defined.

    It reads through our own store, so it needs none of DuckDB's extensions (which are downloaded at run time) and no
    credentials in SQL; projections and filters are pushed down to the files. The view holds the files that were
    committed when it was made. Parts of another vector width (another model, other dimensions) cannot stand in the same
    view: then name a `spec_hash`. Raises `MissingDependency`, and `InvalidRequest` for such a mixture.
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
    schemas = {spec: _shown(form.inspect(part.key, filesystem)) for spec, part in first.items()}
    shown = next(iter(schemas.values()))
    if not all(schema.equals(shown) for schema in schemas.values()):
        raise InvalidRequest(
            "The collection holds vectors of several widths or encodings.",
            hint=f"Choose a spec: {', '.join(sorted(schemas))}.",
        )
    keys = [part.key for manifest in manifests for part in manifest.parts]
    return dataset.dataset(keys, schema=shown, format=form, filesystem=filesystem)


def _shown(schema: Any) -> Any:
    """The schema in which DuckDB sees a part: with the columns of every version, and float32 for its lists of float16.

    DuckDB takes no float16 of Arrow's; the data set casts, and fills in nulls.
    """
    if "colbert_scale" not in schema.names:
        place = schema.get_field_index("colbert") + 1
        schema = schema.insert(place, pa.field("colbert_scale", SCALE_TYPE))
    colbert = schema.field("colbert").type.value_type
    if pa.types.is_fixed_size_list(colbert):
        wider = pa.list_(element(pa.list_(element(pa.float32()), colbert.list_size)))
        schema = schema.set(schema.get_field_index("colbert"), pa.field("colbert", wider))
    return schema


def store_filesystem(store: ObjectStore, parts: Sequence[Part]) -> Any:
    """A read-only `pyarrow.fs.FileSystem` of exactly these parts, on any of our stores."""
    fs: Any = import_module("pyarrow.fs")
    sizes = {part.key: part.bytes for part in parts}

    class Handler(fs.FileSystemHandler):  # type: ignore[misc] # pyarrow ships no types
        """What pyarrow asks of a file system, over the parts alone."""

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
