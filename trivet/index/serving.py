"""The role `search`: one process that owns the index, keeps it level with S3, and answers searches over a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import structlog

from trivet.errors import IndexUnavailable, InvalidRequest, PermanentError, TrivetError
from trivet.index import Index, open_index
from trivet.index.edge_folder import hold
from trivet.index.indexer import Indexer, Standing
from trivet.index.marks import Marks
from trivet.index.sync import FillReport, Sync, VerifyReport
from trivet.index.wire import error_json, query_of, result_json, socket_address
from trivet.index.writing import Writer
from trivet.retrieval import SearchRequest, SearchResult
from trivet.retrieval.indexed import IndexRetriever
from trivet.retrieval.remote import with_note
from trivet.settings import Settings
from trivet.stores import ObjectStore, open_store

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.2
#: A body may hold a query of 8192 tokens: 32 MiB of ColBERT, a third more as base64.
_MOST_BYTES = 64 << 20
#: Silence of a client after which its connection is closed.
_CLIENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Parts:
    """An open index and what works on it."""

    index: Index
    marks: Marks
    writer: Writer
    sync: Sync
    store: ObjectStore


@contextmanager
def opened(settings: Settings) -> Iterator[Parts]:
    """The index of the settings, in this process. Raises as `open_index`."""
    index, store = open_index(settings), open_store(settings)
    try:
        marks = Marks(index)
        writer = Writer(index, marks, store)
        yield Parts(index, marks, writer, Sync(settings, index, marks, writer, store), store)
    finally:
        index.close()


def search_forever(settings: Settings, stopping: Callable[[], bool]) -> None:
    """Own the index until `stopping()`. Raises `IndexBusy` where another process does, and what opening it raises."""
    with opened(settings) as parts:
        indexer = Indexer(settings, parts.marks, parts.sync, parts.writer, parts.index.settle, stopping)
        threads = [
            threading.Thread(target=indexer.run, name="trivet-indexer", daemon=True),
            threading.Thread(target=_optimize, args=(parts.index, indexer, stopping), name="trivet-optimizer"),
        ]
        with _server(settings.search_socket, _Answers(settings, parts, indexer)) as server:
            for thread in threads:
                thread.start()
            server.timeout = _LOOK_SECONDS
            while not stopping():
                server.handle_request()
                if not threads[0].is_alive() and not stopping():
                    raise PermanentError("The indexer has ended; the log says why.")
        for thread in threads:
            thread.join(settings.drain_seconds)
        indexer.close()


def _optimize(index: Index, indexer: Indexer, stopping: Callable[[], bool]) -> None:
    while not stopping():
        if not indexer.grown.wait(_LOOK_SECONDS):
            continue
        indexer.grown.clear()
        try:
            index.optimize()
        except TrivetError as error:
            log.warning("index.not_optimized", error=error.message)


class _Answers:
    """What is answered to whom asks."""

    def __init__(self, settings: Settings, parts: Parts, indexer: Indexer) -> None:
        self._settings = settings
        self._parts = parts
        self._indexer = indexer
        self._retriever = IndexRetriever(parts.index, parts.marks, parts.store, settings.s3_prefix)

    def answer(self, path: str, body: bytes) -> bytes:
        """The answer as JSON. Raises what goes wrong."""
        if path == "/status":
            return _json(self._indexer.standing())
        if path == "/held":
            return json.dumps({"collections": self._held()}).encode()
        asked = _object(body)
        namespace, collection = str(asked.get("namespace", "")), str(asked.get("collection", ""))
        if path == "/search":
            return result_json(self._search(namespace, collection, asked))
        if path == "/rebuild":
            return _json(self._parts.sync.fill(namespace, collection, anew=True))
        if path == "/verify":
            return _json(self._parts.sync.verify(namespace, collection, deep=bool(asked.get("deep"))))
        raise InvalidRequest(f"Nothing is answered at {path[:40]!r}.")

    def _held(self) -> list[dict[str, Any]]:
        """What the index has of each collection."""
        marks = self._parts.marks
        held = []
        for namespace, collection in marks.collections():
            objects, chunks = marks.totals(namespace, collection)
            held.append({"namespace": namespace, "collection": collection, "objects": objects, "chunks": chunks})
        return held

    def _search(self, namespace: str, collection: str, asked: dict[str, Any]) -> SearchResult:
        try:
            request = SearchRequest.model_validate(asked.get("request", {}))
        except ValueError as error:
            raise InvalidRequest(f"The request cannot be read: {' '.join(str(error).split())[:300]}.") from None
        drops = self._indexer.drops
        if not self._indexer.filled:
            raise IndexUnavailable("The index is still being filled from S3.")
        behind = self._indexer.fresh(self._settings.index_fresh_seconds)
        # Whoever can read the parts would rather do that than miss something, as long as there are few.
        if behind and self._parts.marks.totals(namespace, collection)[1] < int(asked.get("whole_below", 0)):
            raise IndexUnavailable(f"The index has {behind} events still to take in.")
        result = self._retriever.search(namespace, collection, query_of(asked.get("query", {})), request)
        if self._indexer.drops != drops:
            raise IndexUnavailable("The index was damaged and is being filled anew from S3.")
        events = "1 event" if behind == 1 else f"{behind} events"
        return result if not behind else with_note(result, f"The index has {events} still to take in.")


def _json(value: Standing | FillReport | VerifyReport) -> bytes:
    return json.dumps(asdict(value)).encode()


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("The body is no JSON object.")
    return found


# ---------------------------------------------------------------- the socket


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    answers: _Answers

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class prints a trace
        log.debug("search.client_gone", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        given = self.headers.get("Content-Length", "")
        if not (given.isascii() and given.isdecimal()):
            self.close_connection = True
            self._send(400, error_json(InvalidRequest("The request does not say how long its body is.")))
        elif (length := int(given)) > _MOST_BYTES:
            self.close_connection = True
            self._send(413, error_json(InvalidRequest(f"The body has more than {_MOST_BYTES} bytes.")))
        else:
            self._answer(self.rfile.read(length))

    def _answer(self, body: bytes) -> None:
        try:
            self._send(200, self.server.answers.answer(self.path, body))
        except TrivetError as error:
            self._send(400 if isinstance(error, PermanentError) else 503, error_json(error))
        except Exception as error:
            log.exception("search.failed")
            self._send(500, error_json(TrivetError(f"The search ended with an unexpected {type(error).__name__}.")))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        try:
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client is gone

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        log.debug("search.request", line=format % args)


@contextmanager
def _server(path: Path, answers: _Answers) -> Iterator[_Server]:
    """Listens at the path, in place of what a process that was killed has left there. Raises `IndexBusy`."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The embedded index has a lock of its own; on a server nothing else keeps a second process away.
    held = hold(path.with_suffix(".lock"))
    path.unlink(missing_ok=True)
    with socket_address(path) as address:
        server = _Server(address, _Handler)
    server.answers = answers
    path.chmod(0o600)
    try:
        yield server
    finally:
        server.server_close()
        with suppress(FileNotFoundError):
            path.unlink()
        held.close()
