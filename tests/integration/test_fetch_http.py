"""http and https sources against real servers on this machine, well-behaved and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.web import Page, Server, answer, zipped
from trivet.errors import (
    CorruptDocument,
    EmptyDocument,
    SourceError,
    SourceForbidden,
    SourceNotFound,
    SourceRefused,
    SourceTooLarge,
    SourceUnavailable,
)
from trivet.fetch import fetch
from trivet.fetch.http import HttpFetcher, close_pools
from trivet.settings import Settings

Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    servers: list[Server] = []

    def start(pages: dict[str, Page], tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(pages, tls))
        return servers[-1]

    yield start
    close_pools()
    for server in servers:
        server.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where to fetch to; nothing else may appear beside it."""
    path = tmp_path / "source"
    yield path
    assert set(tmp_path.iterdir()) <= {path}


def allowing(*servers: Server, **fields: Any) -> Settings:
    return Settings(allow_addresses=tuple(server.place for server in servers), **fields)


def refused_with(
    kind: type[Exception], settings: Settings, url: str, target: Path, resolve: Any = None, tls: Any = None
) -> str:
    """The message of the error that a fetch must end with; nothing may be left on disk."""
    fetcher = HttpFetcher(settings, resolve=resolve, tls=tls)
    try:
        with pytest.raises(kind) as caught:
            fetcher.fetch(url, target)
    finally:
        fetcher.close()
    assert type(caught.value) is kind
    assert not target.exists()
    message = str(caught.value)
    assert "secret" not in message
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- what a good answer gives


def test_a_file_comes_whole_with_all_that_its_headers_state(serve: Serve, target: Path) -> None:
    body = "Grüße".encode() * 100_000
    page = answer(
        body,
        Content_Type="Text/HTML; charset=UTF-8",
        Content_Disposition='attachment; filename="a b.html"',
        ETag='"v1"',
        Last_Modified="Wed, 21 Oct 2015 07:28:00 GMT",
    )
    server = serve({"/x/y.html": page})
    found = fetch(allowing(server), server.url("/x/y.html?token=secret"), target)
    assert target.read_bytes() == body
    assert (found.path, found.size, found.sha256) == (target, len(body), hashlib.sha256(body).hexdigest())
    assert (found.media_type, found.charset, found.filename) == ("text/html", "utf-8", "a b.html")
    assert (found.etag, found.last_modified) == ('"v1"', "Wed, 21 Oct 2015 07:28:00 GMT")
    assert found.final_url == server.url("/x/y.html") + "?…"
    assert "GET /x/y.html?token=secret HTTP/1.1" in server.requests[0]
    assert f"Host: {server.place}" in server.requests[0]
    assert "User-Agent: trivet/" in server.requests[0]


def test_bodies_may_be_chunked_or_end_with_the_connection_or_be_empty(serve: Serve, target: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"
    server = serve({"/chunked": chunked, "/closed": answer(b"hello", length=-1), "/empty": answer()})
    settings = allowing(server)
    for path, body in (("/chunked", b"hello world"), ("/closed", b"hello"), ("/empty", b"")):
        assert fetch(settings, server.url(path), target).size == len(body)
        assert target.read_bytes() == body


def test_a_packed_body_is_unpacked_and_hashed_as_it_was_meant(serve: Serve, target: Path) -> None:
    body = b"some text " * 1000
    server = serve({"/": zipped(body)})
    assert fetch(allowing(server), server.url("/"), target).sha256 == hashlib.sha256(body).hexdigest()
    assert "Accept-Encoding: gzip, deflate" in server.requests[0]


def test_many_small_files_of_one_host_share_a_connection_and_carry_no_cookies(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"x", Set_Cookie="session=secret; Path=/")})
    settings = allowing(server)
    for _ in range(20):
        fetch(settings, server.url("/"), target)
    assert server.connections == 1
    assert not any("cookie" in request.lower() for request in server.requests)


def test_a_forked_process_opens_connections_of_its_own(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"x")})
    settings = allowing(server)
    fetch(settings, server.url("/"), target)
    child = multiprocessing.get_context("fork").Process(target=fetch, args=(settings, server.url("/"), target))
    child.start()
    child.join(30)
    fetch(settings, server.url("/"), target)
    assert child.exitcode == 0
    assert server.connections == 2


def test_proxies_and_netrc_of_the_environment_are_not_used(
    serve: Serve, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server, proxy = serve({"/": answer(b"direct")}), serve({})
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login secret password secret\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url("/"))
    assert fetch(allowing(server, proxy), server.url("/"), target).size == 6
    assert proxy.connections == 0
    assert "authorization" not in server.requests[0].lower()


def test_an_international_name_is_asked_for_in_its_ascii_form(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"x")})
    asked: list[str] = []

    def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    fetcher = HttpFetcher(allowing(server), resolve=resolve)
    fetcher.fetch(server.url("/", host="Bücher.Example"), target)
    fetcher.close()
    assert asked == ["xn--bcher-kva.example"]
    assert "Host: xn--bcher-kva.example" in server.requests[0]


# ---------------------------------------------------------------- where it may connect to


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://LOCALHOST./", "http://0/", "http://0.0.0.0/", "http://127.1/",
        "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://0177.0.0.1/", "http://0x7f.1/",
        "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[0:0:0:0:0:0:0:1]/",
        "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fe80::1%25lo]/", "http://[fec0::1]/",
        "http://169.254.169.254/latest/meta-data/", "http://100.100.100.200/", "http://168.63.129.16/",
        "http://[fd00:ec2::254]/", "http://192.88.99.1/", "http://10.0.0.1/", "http://１２７.０.０.１/", "http://127。0。0。1/",
        "http://①②⑦.⓪.⓪.①/", "http://%31%32%37.0.0.1/", "http://127.0.0.1%2f@example.com/", "http://example.com@127.0.0.1/",
        "http://example.com:80@127.0.0.1/", "http://127.0.0.1:80#@example.com/", "http://127.0.0.1\\@example.com/",
        "http://example.com\\@127.0.0.1/", "http://127.0.0.1?@example.com/", "http:///127.0.0.1/", "http:127.0.0.1/",
        "http://127.0.0.1:22/", "http://8.8.8.8:22/", "http://127.0.0.1 /", "http://127.0.0.1\t/", "http://[::1", "http://",
        "http://[127.0.0.1]/", "http://[::1]extra/", "http://a..b/", "http://" + "a" * 70 + ".example/", "http://:80/",
        "gopher://127.0.0.1/", "dict://127.0.0.1:11211/", "ftp://127.0.0.1/", "file:///etc/passwd", "file://127.0.0.1/etc/passwd",
        "s3://trivet/secret", "javascript:alert(1)",
        "unix:///run/docker.sock", "http+unix://%2frun%2fdocker.sock/", "//127.0.0.1/", "",
    ],
)  # fmt: skip
def test_no_way_to_write_a_url_reaches_this_machine(url: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(SourceError):
        fetch(Settings(), url, target)
    assert not target.exists()


def test_a_name_is_looked_up_once_and_the_checked_address_is_the_one_connected_to(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"inside")})
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    tried: list[str] = []

    def rebinding(_host: str, _port: int) -> Sequence[str]:
        return next(answers)

    class Recorded(HttpFetcher):
        pass

    fetcher = HttpFetcher(Settings(source_ports=(80, server.port), source_connect_seconds=0.2), resolve=rebinding)
    plain = fetcher._pool._network_backend._plain  # type: ignore[attr-defined]  # our own backend
    connect = plain.connect_tcp

    def recording(host: str, *args: Any) -> Any:
        tried.append(host)
        return connect(host, *args)

    plain.connect_tcp = recording
    with pytest.raises(SourceUnavailable):
        fetcher.fetch(server.url("/", host="rebinding.example"), target)
    with pytest.raises(SourceRefused):
        fetcher.fetch(server.url("/", host="rebinding.example"), target)
    fetcher.close()
    assert tried == ["8.8.8.8"]
    assert server.connections == 0


def test_the_next_address_is_tried_where_one_refuses(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"x")})
    settings = Settings(allow_addresses=(f"127.0.0.0/8:{server.port}",))
    fetcher = HttpFetcher(settings, resolve=lambda _host, _port: ["127.9.9.9", "127.0.0.1"])
    assert fetcher.fetch(server.url("/", host="two.example"), target).size == 1
    fetcher.close()


def test_user_info_is_refused_and_never_sent(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"x")})
    url = server.url("/").replace("127.", "user:secret@127.")
    assert "user name or password" in refused_with(SourceRefused, allowing(server), url, target)
    assert server.connections == 0


# ---------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_the_end(serve: Serve, target: Path, status: int) -> None:
    other = serve({"/c.txt": answer(b"end")})
    server = serve(
        {
            "/a": answer(b"moved", status, Location="b?sig=secret#part"),
            "/b": answer(b"", status, Location=other.url("/c.txt")),
        }
    )
    found = fetch(allowing(server, other), server.url("/a"), target)
    assert (target.read_bytes(), found.final_url, found.filename) == (b"end", other.url("/c.txt"), "c.txt")
    assert "GET /b?sig=secret HTTP/1.1" in server.requests[1]


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://169.254.169.254/latest/", SourceRefused),
        ("//10.0.0.1/", SourceRefused),
        ("http://[::ffff:10.0.0.1]/", SourceRefused),
        ("http://0x7f.1/", SourceRefused),
        ("http://2130706433/", SourceError),
        ("http://127.0.0.1:1/", SourceRefused),
        ("file:///etc/passwd", SourceRefused),
        ("data:text/plain,hello", SourceRefused),
        ("s3://bucket/key", SourceRefused),
        ("ftp://example.com/", SourceRefused),
        ("javascript:alert(1)", SourceRefused),
        ("http://user:secret@8.8.8.8/", SourceRefused),
        ("http://[::1", SourceError),
        ("http://", SourceError),
        ("http://①②⑦.0.0.1/", SourceError),
    ],
)
def test_a_redirect_is_held_to_the_same_rules(serve: Serve, target: Path, location: str, kind: type[Exception]) -> None:
    server = serve({"/": answer(b"", 302, Location=location)})
    with pytest.raises(kind) as caught:
        fetch(allowing(server), server.url("/"), target)
    assert isinstance(caught.value, SourceError)
    assert "secret" not in str(caught.value)


def test_redirects_in_a_circle_and_too_many_end_with_an_error(serve: Serve, target: Path) -> None:
    pages: dict[str, Page] = {"/self": answer(b"", 302, Location="/self")}
    pages |= {f"/{n}": answer(b"", 302, Location=f"/{n + 1}") for n in range(6)}
    pages["/5"] = answer(b"end")
    server = serve(pages)
    settings = allowing(server)
    assert "circle" in refused_with(SourceError, settings, server.url("/self"), target)
    assert fetch(settings, server.url("/0"), target).size == 3
    target.unlink()
    fewer = allowing(server, source_max_redirects=4)
    assert "more than 4 times" in refused_with(SourceError, fewer, server.url("/0"), target)
    none = allowing(server, source_max_redirects=0)
    assert "more than 0 times" in refused_with(SourceError, none, server.url("/0"), target)


# ---------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, SourceNotFound), (410, SourceNotFound), (401, SourceForbidden), (403, SourceForbidden),
        (407, SourceForbidden), (408, SourceUnavailable), (425, SourceUnavailable), (429, SourceUnavailable),
        (500, SourceUnavailable), (502, SourceUnavailable), (503, SourceUnavailable), (504, SourceUnavailable),
        (400, SourceError), (405, SourceError), (418, SourceError), (451, SourceError), (204, EmptyDocument),
        (205, EmptyDocument), (206, SourceError), (201, SourceError), (304, SourceError), (300, SourceError),
        (302, SourceError),
    ],
)  # fmt: skip
def test_each_status_has_its_error(serve: Serve, target: Path, status: int, kind: type[Exception]) -> None:
    server = serve({"/x": f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode()})
    message = refused_with(kind, allowing(server), server.url("/x?key=secret"), target)
    assert message.startswith(server.url("/x") + f"?… answered {status}")


def test_a_busy_source_says_how_long_to_wait(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"", 503, Retry_After="120")})
    assert "wait 120 s" in refused_with(SourceUnavailable, allowing(server), server.url("/"), target)


# ---------------------------------------------------------------- sizes


def test_a_stated_length_over_the_limit_is_not_even_read(serve: Serve, target: Path) -> None:
    server = serve({"/": answer(b"", length=1 << 40)})
    message = refused_with(SourceTooLarge, allowing(server, source_max_bytes=1000), server.url("/"), target)
    assert "1,000 bytes" in message


def test_an_endless_body_is_cut_at_the_limit(serve: Serve, target: Path) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not server.over.is_set():
            connection.sendall(b"x" * 65536)

    server = serve({"/": endless})
    refused_with(SourceTooLarge, allowing(server, source_max_bytes=1 << 20), server.url("/"), target)


def test_a_gzip_bomb_is_cut_at_the_limit(serve: Serve, target: Path) -> None:
    server = serve({"/": zipped(b"\0" * (32 << 20))})
    refused_with(SourceTooLarge, allowing(server), server.url("/"), target)
    refused_with(SourceTooLarge, allowing(server, source_max_bytes=1 << 20), server.url("/"), target)


def test_a_length_that_lies_is_noticed(serve: Serve, target: Path) -> None:
    server = serve(
        {
            "/short": answer(b"only this", length=100, Connection="close"),
            "/long": answer(b"this and more", length=4),
            "/broken": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx",
            "/two": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            "/negative": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
        }
    )
    settings = allowing(server)
    assert "broke off" in refused_with(SourceUnavailable, settings, server.url("/short"), target)
    for path in ("/broken", "/two", "/negative"):
        assert "valid HTTP" in refused_with(SourceUnavailable, settings, server.url(path), target)
    assert fetch(settings, server.url("/long"), target).size == 4
    assert target.read_bytes() == b"this"


def test_an_encoding_that_was_not_asked_for_or_is_broken_is_an_error(serve: Serve, target: Path) -> None:
    server = serve(
        {
            "/br": answer(b"x", Content_Encoding="br"),
            "/broken": answer(b"not gzip", Content_Encoding="gzip"),
            "/cut": answer(gzip.compress(os.urandom(1000))[:-20], Content_Encoding="gzip"),
        }
    )
    settings = allowing(server)
    assert "'br'" in refused_with(SourceError, settings, server.url("/br"), target)
    refused_with(CorruptDocument, settings, server.url("/broken"), target)
    refused_with(SourceUnavailable, settings, server.url("/cut"), target)


# ---------------------------------------------------------------- time and broken connections


def drip(head: bytes, server_over: Callable[[], bool], piece: bytes = b"x") -> Page:
    def page(connection: socket.socket) -> None:
        connection.sendall(head)
        while not server_over():
            connection.sendall(piece)
            time.sleep(0.02)

    return page


def test_a_source_that_drips_is_ended_by_the_total_time_in_head_and_body(serve: Serve, target: Path) -> None:
    server = serve({})
    server.pages["/body"] = drip(b"HTTP/1.1 200 OK\r\n\r\n", server.over.is_set)
    server.pages["/head"] = drip(b"HTTP/1.1 200 OK\r\nX-Long: ", server.over.is_set)
    server.pages["/status"] = drip(b"", server.over.is_set, b"H")
    server.pages["/continue"] = drip(b"", server.over.is_set, b"HTTP/1.1 100 Continue\r\n\r\n")
    settings = allowing(server, source_total_seconds=0.4, source_read_seconds=5)
    for path in ("/body", "/head", "/status", "/continue"):
        message = refused_with(SourceUnavailable, settings, server.url(path + "?key=secret"), target)
        assert "within 0.4 s" in message


def test_a_silent_source_is_ended_by_the_read_time(serve: Serve, target: Path) -> None:
    server = serve({})
    server.pages["/head"] = lambda _connection: (server.over.wait(20), None)[1]
    server.pages["/body"] = lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\n\r\nx"), server.over.wait(20), None)[2]
    settings = allowing(server, source_read_seconds=0.2)
    for path in ("/head", "/body"):
        assert "sent nothing for 0.2 s" in refused_with(SourceUnavailable, settings, server.url(path), target)


def test_redirects_share_one_total_time(serve: Serve, target: Path) -> None:
    server = serve({})

    def slow(location: str) -> Page:
        return lambda c: (time.sleep(0.2), c.sendall(answer(b"", 302, Location=location, length=-1)), None)[2]

    server.pages |= {f"/{n}": slow(f"/{n + 1}") for n in range(6)}
    settings = allowing(server, source_total_seconds=0.5)
    assert "within 0.5 s" in refused_with(SourceUnavailable, settings, server.url("/0"), target)


def test_a_look_up_that_hangs_is_ended_by_the_connect_time(target: Path) -> None:
    def hanging(_host: str, _port: int) -> Sequence[str]:
        time.sleep(1)
        return ["8.8.8.8"]

    settings = Settings(source_connect_seconds=0.1)
    assert "too long" in refused_with(SourceUnavailable, settings, "http://slow.example/", target, resolve=hanging)


def test_a_name_that_does_not_exist_says_so(target: Path) -> None:
    def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    message = refused_with(SourceUnavailable, Settings(), "http://no.example/?key=secret", target, resolve=unknown)
    assert "'no.example' cannot be resolved" in message


def test_a_port_where_nobody_listens_refuses(serve: Serve, target: Path) -> None:
    server = serve({})
    server.close()
    message = refused_with(SourceUnavailable, allowing(server), server.url("/?key=secret"), target)
    assert f"{server.place} refused the connection" in message


def test_an_address_that_swallows_packets_is_given_up(serve: Serve, target: Path) -> None:
    # A listener whose queue is full takes no further connection.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        crowd = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            crowd.append(client)
        settings = Settings(allow_addresses=(f"127.0.0.1:{port}",), source_connect_seconds=0.3)
        message = refused_with(SourceUnavailable, settings, f"http://127.0.0.1:{port}/", target)
        for client in crowd:
            client.close()
    assert "in time" in message


@pytest.mark.parametrize(
    ("said", "why"),
    [(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "valid HTTP"),
     (b"", "broke off"), (b"HTTP/1.1 200", "broke off"), (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "valid HTTP"),
     (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", "valid HTTP"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "valid HTTP"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "broke off")],
)  # fmt: skip
def test_an_answer_that_is_no_http_or_breaks_off_is_one_sentence(
    serve: Serve, target: Path, said: bytes, why: str
) -> None:
    server = serve({"/": lambda connection: connection.sendall(said)})
    assert why in refused_with(SourceUnavailable, allowing(server), server.url("/?key=secret"), target)


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_for(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def here(_host: str, _port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_a_certificate_is_held_against_the_name_and_not_the_address(
    serve: Serve, target: Path, authority: trustme.CA
) -> None:
    server = serve({"/": answer(b"x")}, tls_for(authority, "files.example"))
    fetcher = HttpFetcher(allowing(server), resolve=here, tls=trusting(authority))
    assert fetcher.fetch(server.url("/", host="files.example"), target).size == 1
    fetcher.close()
    assert f"Host: files.example:{server.port}" in server.requests[0]
    target.unlink()
    for url in (server.url("/", host="other.example"), server.url("/")):
        message = refused_with(SourceError, allowing(server), url, target, resolve=here, tls=trusting(authority))
        assert "certificate" in message
        assert "not valid" in message


def test_a_certificate_of_an_unknown_authority_is_refused(serve: Serve, target: Path, authority: trustme.CA) -> None:
    server = serve({"/": answer(b"x")}, tls_for(authority, "files.example"))
    url = server.url("/?key=secret", host="files.example")
    assert "certificate" in refused_with(SourceError, allowing(server), url, target, resolve=here)
    assert not server.requests


def test_from_https_no_redirect_leads_to_http(serve: Serve, target: Path, authority: trustme.CA) -> None:
    plain = serve({"/": answer(b"x")})
    server = serve({"/": answer(b"", 302, Location=plain.url("/"))}, tls_for(authority, "files.example"))
    url = server.url("/", host="files.example")
    settings = allowing(server, plain)
    message = refused_with(SourceRefused, settings, url, target, resolve=here, tls=trusting(authority))
    assert "https to http" in message
    assert plain.connections == 0


def test_https_to_a_server_without_tls_is_one_sentence(target: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def speak() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=speak)
    thread.start()
    settings = Settings(allow_addresses=(f"127.0.0.1:{port}",))
    message = refused_with(SourceError, settings, f"https://127.0.0.1:{port}/?key=secret", target)
    thread.join(10)
    listener.close()
    assert "does not speak TLS" in message


def test_a_handshake_that_hangs_is_one_sentence(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(allow_addresses=(f"127.0.0.1:{silent.getsockname()[1]}",), source_connect_seconds=0.2)
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        assert "handshake in time" in refused_with(SourceUnavailable, settings, url, target)
