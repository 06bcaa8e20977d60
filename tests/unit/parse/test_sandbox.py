"""What a hostile document can do to the process that parses it, and what it can not do to ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.corpus.documents import REPORTS, as_text
from trivet.errors import CorruptDocument, SourceTooLarge, UnsupportedType, WorkerCrashed
from trivet.parse import sandbox
from trivet.settings import Settings

_EVIL = "application/x-evil"
_PROGRAM = """
import sys
import trivet.parse
trivet.parse.PARSERS["application/x-evil"] = "tests.corpus.evil:EvilParser"
trivet.parse.PARSERS["application/x-lies"] = "tests.corpus.evil:LyingParser"
from trivet.parse.child import main
main(int(sys.argv[1]))
"""


@pytest.fixture
def limits() -> Settings:
    return Settings(
        document_max_bytes=1 << 20, parse_memory_bytes=64 << 20, parse_cpu_seconds=1, parse_wall_seconds=30.0
    )


@pytest.fixture(autouse=True)
def _evil_helper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    sandbox.shutdown()
    monkeypatch.setattr(sandbox, "_PROGRAM", ("-c", _PROGRAM))
    yield
    sandbox.shutdown()


def _do(settings: Settings, folder: Path, order: str, media_type: str = _EVIL) -> str:
    path = folder / "order"
    path.write_text(order)
    return sandbox.parse(settings, path, media_type, "").text


def _plain(settings: Settings, folder: Path) -> None:
    """A harmless document still gets through."""
    path = folder / "plain"
    path.write_bytes(as_text(REPORTS[0]))
    assert REPORTS[0].title in sandbox.parse(settings, path, "text/plain", "").text


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS"])
def test_a_crash_is_the_documents_fault_and_only_its_own(limits: Settings, tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptDocument, match=name):
        _do(limits, tmp_path, f"crash {name}")
    _plain(limits, tmp_path)


def test_an_early_exit_is_no_document(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument, match="status 3"):
        _do(limits, tmp_path, "leave 3")
    with pytest.raises(CorruptDocument, match="no usable answer"):
        _do(limits, tmp_path, "leave 0")


def test_memory_is_limited(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge, match="64 MiB"):
        _do(limits, tmp_path, "hoard")
    _plain(limits, tmp_path)


def test_processor_time_is_limited(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge, match="processor time than the limit of 1 s"):
        _do(limits, tmp_path, "spin")


def test_wall_time_is_limited(limits: Settings, tmp_path: Path) -> None:
    short = limits.model_copy(update={"parse_wall_seconds": 0.3})
    with pytest.raises(SourceTooLarge, match=r"limit of 0\.3 s"):
        _do(short, tmp_path, "wait 60")
    _plain(limits, tmp_path)


def test_the_result_is_limited(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceTooLarge, match="1048576 bytes"):
        _do(limits, tmp_path, f"write {(1 << 20) + 1}")
    assert len(_do(limits, tmp_path, f"write {1 << 20}")) == 1 << 20


def test_an_exception_names_its_class_and_not_its_message(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument, match="RuntimeError") as caught:
        _do(limits, tmp_path, "fail some secret words")
    assert "secret" not in str(caught.value)
    with pytest.raises(CorruptDocument, match="nests too deeply"):
        _do(limits, tmp_path, "recurse")


def test_lies_about_offsets_are_not_believed(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument, match="no usable answer"):
        _do(limits, tmp_path, "anything", media_type="application/x-lies")


def test_no_secret_of_the_worker_is_in_the_parsers_environment(
    limits: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVET_S3_SECRET_KEY", "hush-hush")
    assert "hush-hush" not in _do(limits, tmp_path, "environment")


def test_no_file_or_socket_of_the_worker_is_open_in_the_parser(limits: Settings, tmp_path: Path) -> None:
    with (tmp_path / "private").open("w"), socket.socket():
        assert "private" not in _do(limits, tmp_path, "descriptors")


@pytest.mark.skipif(sys.platform != "linux", reason="privileges are given up through prctl and capset")
def test_privileges_are_given_up(limits: Settings, tmp_path: Path) -> None:
    status = dict(line.split(":\t", 1) for line in _do(limits, tmp_path, "process").splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert status["Threads"] == "1"


_UNSHARE = shutil.which("unshare")


@pytest.mark.skipif(
    _UNSHARE is None or subprocess.run([_UNSHARE, "-rn", "true"], capture_output=True).returncode != 0,
    reason="the kernel lets nobody make a network namespace here",
)
def test_the_parser_has_no_network(limits: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert _do(limits, tmp_path, f"connect 127.0.0.1:{server.getsockname()[1]}").startswith("refused")


def test_unknown_types_are_named(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedType, match="image/png"):
        _do(limits, tmp_path, "x", media_type="image/png")


def test_threads_parse_at_the_same_time(limits: Settings, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            folder = tmp_path / str(number)
            folder.mkdir()
            for _ in range(3):
                _plain(limits, folder)
        except BaseException as error:  # noqa: BLE001 - reported by the test itself
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_helper_that_was_killed_between_documents_is_replaced(limits: Settings, tmp_path: Path) -> None:
    _plain(limits, tmp_path)
    (helper,) = sandbox._idle
    os.kill(helper.pid, signal.SIGKILL)
    _plain(limits, tmp_path)


def test_a_parser_killed_from_outside_is_worth_another_try(limits: Settings, tmp_path: Path) -> None:
    with pytest.raises(WorkerCrashed, match="killed from outside"):
        _do(limits, tmp_path, "crash SIGKILL")


_WORKER = """
import sys
from pathlib import Path
from trivet.parse import sandbox
from trivet.settings import Settings
sandbox._PROGRAM = ("-c", sys.argv[3])
print("ready", flush=True)
sandbox.parse(Settings(), Path(sys.argv[1]), sys.argv[2], "")
"""


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_lives_on_when_the_worker_dies(tmp_path: Path, clean_env: dict[str, str], stop: signal.Signals) -> None:
    order = tmp_path / "order"
    order.write_text("wait 120")
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(order), _EVIL, _PROGRAM], stdout=subprocess.PIPE, env=clean_env
    )
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        deadline = time.monotonic() + 60
        while len(found := _descendants(worker.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(found) == 2
        worker.send_signal(stop)
        worker.wait(timeout=60)
        _, alive = psutil.wait_procs(found, timeout=60)
        assert not alive
    finally:
        worker.kill()
        worker.communicate()


def test_a_forked_worker_has_a_helper_of_its_own(tmp_path: Path, clean_env: dict[str, str]) -> None:
    """As Celery's prefork does: the parent has parsed, then its children parse at the same time."""
    document = tmp_path / "plain"
    document.write_bytes(as_text(REPORTS[0]))
    script = """
import os, sys
from pathlib import Path
from trivet.parse import sandbox
from trivet.settings import Settings
def parse():
    assert sandbox.parse(Settings(), Path(sys.argv[1]), "text/plain", "").text
    return sandbox._idle[0].pid
mine = parse()
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if parse() != mine and parse() != mine else 2
            sandbox.shutdown()
        finally:
            os._exit(status)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
assert parse() == mine
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, str(document)], env=clean_env, timeout=120)
    assert done.returncode == 0
