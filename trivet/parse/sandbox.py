"""Parses one document in a process with limits. Usable from threads and from daemonic and prefork processes."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from trivet.errors import CorruptDocument, SourceTooLarge, WorkerCrashed
from trivet.parse import ParseLimits, load_parser
from trivet.parse.child import memory_error
from trivet.parse.wire import read_result
from trivet.settings import Settings
from trivet.values import Document

_ANSWER_BYTES = 4096
_PROGRAM = ("-m", "trivet.parse.child")
#: What the helper may take beyond the document's own time: its start and the first import of a parser.
_GRACE_SECONDS = 30.0


def parse(settings: Settings, path: Path, media_type: str, charset: str = "") -> Document:
    """Parse the file in a process of its own, within the settings' limits on memory, CPU, time, pages and text.

    Raises what the parser raises; `SourceTooLarge` with the figure for every limit that was hit, `CorruptDocument` if
    the document crashed the parser, `UnsupportedType`, `MissingDependency`, and `WorkerCrashed` (transient) if
    someone else killed the process.
    """
    limits = ParseLimits(max_pages=settings.document_max_pages, max_text_bytes=settings.document_max_bytes)
    request = {
        "path": str(path.absolute()),
        "media_type": media_type,
        "charset": charset,
        "max_pages": limits.max_pages,
        "max_text_bytes": limits.max_text_bytes,
        "memory_bytes": settings.parse_memory_bytes,
        "cpu_seconds": settings.parse_cpu_seconds,
        "wall_seconds": settings.parse_wall_seconds,
    }
    with tempfile.TemporaryFile() as result:
        answer = _ask(request, result.fileno())
        _judge(answer, request)
        result.seek(0)
        return read_result(result, limits)


def shutdown() -> None:
    """End the helper processes that this process has started and that are idle."""
    with _lock:
        helpers, _idle[:] = list(_idle), []
    for helper in helpers:
        helper.close()


class _HelperGone(Exception):
    """The helper ended or fell silent before it answered."""


class _Helper:
    """A process of `trivet.parse.child`; serves one request at a time."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell, no argument from outside
                [sys.executable, "-P", *_PROGRAM, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the helper."""
        return self._process.pid

    def ask(self, request: dict[str, Any], descriptor: int) -> dict[str, Any]:
        """The answer to a request; the document's result is in the file then. Raises `_HelperGone`."""
        self._link.settimeout(request["wall_seconds"] + _GRACE_SECONDS)
        try:
            socket.send_fds(self._link, [json.dumps(request).encode() + b"\n"], [descriptor])
            data = b""
            while not data.endswith(b"\n"):
                more = self._link.recv(_ANSWER_BYTES)
                if not more:
                    raise _HelperGone
                data += more
            answer: dict[str, Any] = json.loads(data)
        except (OSError, ValueError):
            raise _HelperGone from None
        return answer

    def close(self) -> None:
        """End the process; it leaves by itself when the link closes."""
        self._link.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End the process and what it forked, now."""
        self._process.kill()
        self.close()

    def forget(self) -> None:
        """Let go of a helper that belongs to the process that this one was forked from."""
        self._link.close()
        self._process.returncode = 0


_lock = threading.Lock()
_idle: list[_Helper] = []


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for helper in _idle:
        helper.forget()
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(shutdown)


def _environment() -> dict[str, str]:
    """Where Python finds its modules, and nothing else: no secret of ours reaches the parser."""
    paths = (Path(entry or ".").absolute() for entry in sys.path)
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path.exists()),
        "PYTHONUTF8": "1",
    }


def _ask(request: dict[str, Any], descriptor: int) -> dict[str, Any]:
    """Ask an idle helper, or a new one; a helper that is gone is replaced once."""
    for _ in range(2):
        with _lock:
            helper = _idle.pop() if _idle else None
        if helper is None:
            helper = _Helper()
        try:
            answer = helper.ask(request, descriptor)
        except _HelperGone:
            helper.kill()
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            continue
        except BaseException:
            # A soft time limit or Ctrl-C: the helper still works for a caller who left.
            helper.kill()
            raise
        with _lock:
            _idle.append(helper)
        return answer
    load_parser(request["media_type"])
    raise WorkerCrashed("The parser's process ended before it answered.", hint="Is the machine out of memory?")


def _judge(answer: dict[str, Any], request: dict[str, Any]) -> None:
    """Raise the error for a process that did not end by itself."""
    status = int(answer["status"])
    if answer["timed_out"]:
        raise SourceTooLarge(
            f"Parsing took longer than the limit of {request['wall_seconds']:g} s.",
            hint="Split the document, or raise TRIVET_PARSE_WALL_SECONDS.",
        )
    if status >= 0:
        if status > 0:
            raise CorruptDocument(f"The parser ended with status {status} on the document.")
        return
    if -status == signal.SIGXCPU or answer["cpu_seconds"] >= request["cpu_seconds"]:
        raise SourceTooLarge(
            f"Parsing used more processor time than the limit of {request['cpu_seconds']} s.",
            hint="Split the document, or raise TRIVET_PARSE_CPU_SECONDS.",
        )
    if -status == signal.SIGKILL:
        raise WorkerCrashed("The parser's process was killed from outside.", hint="Is the machine out of memory?")
    if answer["peak_bytes"] >= request["memory_bytes"] // 2:
        # C++ parsers abort where malloc fails.
        raise memory_error(request["memory_bytes"])
    raise CorruptDocument(f"The document crashed the parser ({signal.Signals(-status).name}).")
