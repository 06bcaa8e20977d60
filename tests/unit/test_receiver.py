"""The web server that tests take webhooks with."""

from __future__ import annotations

import socket

from tests.support.receiver import receiving

_HEAD = b"POST /hook HTTP/1.1\r\nHost: here\r\nwebhook-id: %d\r\nContent-Length: 5\r\n\r\n"


def test_a_request_whose_sender_dies_in_the_middle_of_it_was_never_received() -> None:
    with receiving() as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port)) as half:
            half.sendall(_HEAD % 1 + b"he")
            half.shutdown(socket.SHUT_WR)
            assert half.recv(1) == b""
        with socket.create_connection(("127.0.0.1", receiver.port)) as whole:
            whole.sendall(_HEAD % 2 + b"hello")
            assert whole.recv(12) == b"HTTP/1.1 200"
        assert [(each.event_id, each.body) for each in receiver.got] == [("2", b"hello")]
