"""The demo, with documents made here and the fake encoder: it shows what it should and leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docx
import httpx2 as httpx
import pytest

from infra.demo import archives, documents
from infra.demo.archives import Archive, download, member
from infra.demo.documents import SOURCES, Ready, Source
from infra.demo.server import serving
from infra.demo.word import html_to_docx
from infra.prose import prose
from tests.corpus.pdf import page_of, pdf
from tests.support.supervised import ROOT, wait_until_gone
from tests.support.web import Server, answer
from trivet.errors import CorruptDocument, SourceUnavailable

_NOT_USED = Archive("none", "", ())


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter here
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def _deb(data: bytes) -> bytes:
    out = b"!<arch>\n"
    for name, body in ((b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"odd"), (b"data.tar.xz", data)):
        out += b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o100644, len(body)) + body + b"\n" * (len(body) % 2)
    return out


# ---------------------------------------------------------------- where documents come from


def test_a_file_comes_out_of_a_debian_package_and_of_an_npm_package(tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(_deb(_tar({"./usr/share/doc/a.txt.gz": gzip.compress(b"text")}, "w:xz")))
    (tmp_path / "b.tgz").write_bytes(_tar({"package/README.md": b"# Text"}, "w:gz"))
    assert member(tmp_path / "a.deb", "./usr/share/doc/a.txt.gz") == b"text"
    assert member(tmp_path / "b.tgz", "package/README.md") == b"# Text"


@pytest.mark.parametrize("body", [b"", b"!<arch>\n", b"!<arch>\nodd", _deb(b"no tar"), _deb(_tar({}, "w:xz"))])
def test_a_package_without_the_file_is_said_to_be_damaged(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.deb").write_bytes(body)
    with pytest.raises(CorruptDocument, match="holds no file"):
        member(tmp_path / "a.deb", "./usr/share/doc/a.txt")


@pytest.fixture
def mirror() -> Iterator[Server]:
    server = Server({"/good": answer(b"bytes"), "/other": answer(b"other bytes"), "/gone": answer(b"", 404)})
    yield server
    server.close()


def _archive(*urls: str) -> Archive:
    return Archive("a.tgz", hashlib.sha256(b"bytes").hexdigest(), urls)


def test_an_archive_is_downloaded_once_from_the_first_address_that_has_it(mirror: Server, tmp_path: Path) -> None:
    archive = _archive("http://127.0.0.1:1/closed", mirror.url("/gone"), mirror.url("/good"))
    said: list[str] = []
    assert download(archive, tmp_path, said.append).read_bytes() == b"bytes"
    assert download(archive, tmp_path, said.append).read_bytes() == b"bytes"
    assert said == ["downloading a.tgz"]
    assert len(mirror.requests) == 2


def test_other_bytes_than_the_pinned_ones_are_never_used(mirror: Server, tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument):
        download(_archive(mirror.url("/other")), tmp_path, print)
    assert not list(tmp_path.iterdir())


def test_a_damaged_cache_is_downloaded_again(mirror: Server, tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(b"half")
    assert download(_archive(mirror.url("/good")), tmp_path, print).read_bytes() == b"bytes"


def test_without_the_internet_it_says_so(mirror: Server, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"answered 404.*ConnectError"):
        download(_archive(mirror.url("/gone"), "http://127.0.0.1:1/closed"), tmp_path, print)


def test_documents_are_served_by_name_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<p>text</p>")
    (tmp_path / "secret").write_bytes(b"secret")
    source = Source("page one.html", "", "en", "text/html; charset=utf-8", "", _NOT_USED, "")
    with serving([Ready(source, tmp_path / "page")]) as site:
        got = httpx.get(site.url("page one.html"))
        assert (got.content, got.headers["content-type"]) == (b"<p>text</p>", "text/html; charset=utf-8")
        for path in ("", "secret", "../secret", "%2e%2e/secret", str(tmp_path / "secret")):
            assert httpx.get(f"http://{site.address}/{path}").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(site.url("page one.html"))


def test_a_page_saved_as_word_keeps_its_headings_and_text() -> None:
    page = "<h1>Erklärung</h1><p>Alle <b>Menschen</b></p><h2>Artikel 1</h2><ol><li>eins</li><li><p>zwei</p></li></ol>"
    saved = docx.Document(io.BytesIO(html_to_docx(page.encode())))
    assert [(paragraph.style.name if paragraph.style else "", paragraph.text) for paragraph in saved.paragraphs] == [
        ("Heading 1", "Erklärung"),
        ("Normal", "Alle Menschen"),
        ("Heading 2", "Artikel 1"),
        ("List Number", "eins"),
        ("Normal", "zwei"),
    ]


def test_the_documents_are_as_mixed_as_promised() -> None:
    kinds = {source.media_type.split(";")[0].rsplit("/", 1)[-1].rsplit(".", 1)[-1] for source in SOURCES}
    assert kinds == {"pdf", "html", "document", "markdown", "plain"}
    assert {source.language for source in SOURCES} >= {"en", "de", "ja", "ar"}
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    assert all(len(source.archive.sha256) == 64 and source.licence for source in SOURCES)
    assert archives.debian("pool/main/a/a/a_1_all.deb", "").urls[0].startswith("https://")


# ---------------------------------------------------------------- the whole of it

_SCRIPT = """
import sys
from pathlib import Path
from infra.demo import demo
from infra.demo.documents import SOURCES, Ready
folder = Path(sys.argv[1])
demo.provide = lambda cache, report: [Ready(source, folder / source.name) for source in SOURCES]
sys.exit(demo.main())
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Small documents under the names of the real ones."""
    folder = tmp_path / "documents"
    folder.mkdir()
    page = f"<html><body><article><h1>Title</h1><p>{prose(1, 120)}</p><p>{prose(2, 120)}</p></article></body></html>"
    for number, source in enumerate(documents.SOURCES):
        kind = source.name.rsplit(".", 1)[-1]
        text = prose(number, 150)
        body = {
            "pdf": pdf([page_of([prose(n, 150)]) for n in range(4)]),
            "html": page.replace("Title", f"Title {number}").encode(),
            "docx": html_to_docx(page.encode()),
        }.get(kind, f"# Title\n\n{text}\n".encode())
        (folder / source.name).write_bytes(body)
    return folder


def _start(made: Path, state: Path, clean_env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(made)],
        cwd=ROOT,
        env=clean_env
        | {
            "TRIVET_STATE_DIR": str(state),
            "TRIVET_MODEL_ALIASES": json.dumps({"BAAI/bge-m3": "fake"}),
            "COLUMNS": "200",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_ends_with_everything_that_was_promised_and_can_be_run_again(
    made: Path, tmp_path: Path, clean_env: dict[str, str]
) -> None:
    state = tmp_path / "state"
    for _ in range(2):
        process = _start(made, state, clean_env)
        out, err = process.communicate(timeout=250)
        assert process.returncode == 0, err + out
        assert "Traceback" not in out + err
        for source in SOURCES:
            assert f"{source.name}/g/1/manifest.json" in out
        assert out.count("trivet.ingest.completed") == len(SOURCES)
        assert "Model that ran: fake" in out
        assert "It stands in for BAAI/bge-m3" in out
        assert "FROM chunks GROUP BY" in out
        assert out.count("colbert") >= 3
        assert "cross-lingual" in out
        assert "tokens/s" in out
        wait_until_gone(state)


@pytest.mark.parametrize("moment", ["starting valkey", "starting worker embed", "Everything runs", "queued"])
def test_ctrl_c_leaves_no_process_behind(moment: str, made: Path, tmp_path: Path, clean_env: dict[str, str]) -> None:
    state = tmp_path / "state"
    process = _start(made, state, clean_env)
    assert process.stderr is not None
    said = ""
    while moment not in said:
        line = process.stderr.readline()
        assert line, f"ended before {moment!r}: {said}"
        said += line
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, said + err + out
    assert "Traceback" not in out + err
    wait_until_gone(state)


def test_a_folder_that_is_not_the_demos_is_not_emptied(made: Path, tmp_path: Path, clean_env: dict[str, str]) -> None:
    keep = tmp_path / "state" / "demo" / "keep"
    keep.parent.mkdir(parents=True)
    keep.write_text("mine")
    process = _start(made, tmp_path / "state", clean_env)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was not made by the demo" in err
    assert keep.read_text() == "mine"
