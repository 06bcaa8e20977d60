"""The parser's process: started once per worker process, it forks for every document.

Run as `python -m trivet.parse.child SOCKET_FD`. It loads a parser when one is first asked for, so that a document
costs a fork and not an import. The fork has limits, reads one document, writes the result to the file that came with
the request, and dies. Nothing here has a thread, a secret, or (where the kernel allows) a network.

A request is one line of JSON with a file descriptor; the answer is one line of JSON with how the fork ended.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from trivet.errors import CorruptDocument, SourceTooLarge, TrivetError
from trivet.parse import ParseLimits, Parser, load_parser
from trivet.parse.limits import confine, isolate
from trivet.parse.wire import MAX_HEADER_BYTES, write_document, write_error

_REQUEST_BYTES = 64 << 10
_ALIVE_SECONDS = 1.0


class _ParentGone(Exception):
    """Nobody waits for the answer any more."""


def main(descriptor: int) -> None:
    """Serve requests until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    isolate()
    parent = os.getppid()
    parsers: dict[str, Parser] = {}
    with socket.socket(fileno=descriptor) as link, contextlib.suppress(_ParentGone, ConnectionError):
        while True:
            request, result = _receive(link, parent)
            with os.fdopen(result, "r+b") as file:
                answer = _answer(request, file, parsers, link, parent)
            link.sendall(json.dumps(answer).encode() + b"\n")


def _receive(link: socket.socket, parent: int) -> tuple[dict[str, Any], int]:
    _wait([link], None, parent)
    data, descriptors, _, _ = socket.recv_fds(link, _REQUEST_BYTES, 1)
    while data and not data.endswith(b"\n"):
        more = link.recv(_REQUEST_BYTES)
        data = data + more if more else b""
    if not data or not descriptors:
        raise _ParentGone
    request: dict[str, Any] = json.loads(data)
    return request, descriptors[0]


def _wait(sources: list[Any], seconds: float | None, parent: int) -> list[Any]:
    """Those of `sources` that can be read, none after `seconds`; looks up now and then whether the parent lives."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = _ALIVE_SECONDS if deadline is None else min(_ALIVE_SECONDS, max(deadline - time.monotonic(), 0.0))
        ready = select.select(sources, [], [], left)[0]
        if ready or (deadline is not None and time.monotonic() >= deadline):
            return ready
        if os.getppid() != parent:
            raise _ParentGone


def _answer(
    request: dict[str, Any], file: BinaryIO, parsers: dict[str, Parser], link: socket.socket, parent: int
) -> dict[str, Any]:
    media_type = request["media_type"]
    try:
        if media_type not in parsers:
            parsers[media_type] = load_parser(media_type)
            gc.freeze()
    except TrivetError as error:
        write_error(file, error)
        return {"status": 0, "timed_out": False, "cpu_seconds": 0.0, "peak_bytes": 0}
    return _fork(request, file, parsers[media_type], link, parent)


def _fork(request: dict[str, Any], file: BinaryIO, parser: Parser, link: socket.socket, parent: int) -> dict[str, Any]:
    """Parse in a process of its own, and say how that ended."""
    ended, held = os.pipe()
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        link.close()
        os.close(ended)
        _document_process(request, file, parser, here)
    os.close(held)
    try:
        ready = _wait([ended, link], request["wall_seconds"], parent)
        timed_out = not ready
    except _ParentGone:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(ended)
    if link in ready:
        os.kill(pid, signal.SIGKILL)
        raise _ParentGone
    if timed_out:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "timed_out": timed_out,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _document_process(request: dict[str, Any], file: BinaryIO, parser: Parser, parent: int) -> NoReturn:
    """The life of a fork: limits, document, result, end."""
    status = 1
    try:
        os.setsid()
        limits = ParseLimits(request["max_pages"], request["max_text_bytes"])
        confine(request["memory_bytes"], request["cpu_seconds"], limits.max_text_bytes + MAX_HEADER_BYTES)
        if os.getppid() == parent:
            _parse(request, file, parser, limits)
            status = 0
    finally:
        # Neither the helper's cleanup nor its exit handlers are this process's business.
        os._exit(status)


def _parse(request: dict[str, Any], file: BinaryIO, parser: Parser, limits: ParseLimits) -> None:
    failure: TrivetError
    try:
        document = parser.parse(Path(request["path"]), request["media_type"], request["charset"], limits)
        write_document(file, document)
        return
    except TrivetError as error:
        failure = error
    except MemoryError:
        failure = memory_error(request["memory_bytes"])
    except RecursionError:
        failure = CorruptDocument("The document nests too deeply to be read.")
    except OSError as error:
        if error.errno == errno.ENOMEM:
            failure = memory_error(request["memory_bytes"])
        elif error.errno == errno.EFBIG:
            failure = SourceTooLarge(f"The document has more than {limits.max_text_bytes} bytes of text, the limit.")
        else:
            failure = CorruptDocument(f"The document cannot be read ({os.strerror(error.errno or 0)}).")
    except Exception as error:  # noqa: BLE001 - whatever else a stranger's document raises is about that document
        failure = CorruptDocument(f"The {request['media_type']} parser failed ({type(error).__name__}).")
    file.seek(0)
    file.truncate()
    write_error(file, failure)


def memory_error(limit: int) -> SourceTooLarge:
    """What a document that needs more than `limit` bytes of memory gets."""
    return SourceTooLarge(
        f"Parsing needs more memory than the limit of {limit >> 20} MiB.",
        hint="Split the document, or raise TRIVET_PARSE_MEMORY_BYTES.",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
