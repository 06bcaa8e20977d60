"""Ports are free when chosen, the same the next time, and others when they are taken."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest

from trivet.embedded import ports


def listening(port: int) -> socket.socket:
    taken = socket.socket()
    taken.bind((ports.HOST, port))
    taken.listen()
    return taken


def test_chosen_ports_are_free_and_different() -> None:
    chosen = ports.choose(5, random.Random(1), pairs=True)
    assert len(set(chosen)) == 5
    assert all(ports.is_free(port) and ports.is_free(port + ports.GRPC_OFFSET) for port in chosen)
    # Not from where the kernel takes ports of outgoing connections.
    assert max(chosen) + ports.GRPC_OFFSET < 32768


def test_a_taken_port_is_not_free() -> None:
    (port,) = ports.choose(1, random.Random(2))
    with listening(port):
        assert not ports.is_free(port)
        assert ports.choose(1, random.Random(2)) != (port,)


def test_ports_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ports.json"
    first = ports.remembered(path, 3, random.Random(3))
    assert ports.remembered(path, 3, random.Random(4)) == first


def test_a_remembered_port_that_is_taken_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    first = ports.remembered(path, 2, random.Random(5), pairs=True)
    with listening(first[1] + ports.GRPC_OFFSET):
        assert ports.remembered(path, 2, random.Random(6), pairs=True) != first


@pytest.mark.parametrize("found", ["", "[]", "{}", "[1]", '["a", "b"]', "[70000, 80000]", "[-1, 5]", "\0"])
def test_a_broken_memory_is_replaced(tmp_path: Path, found: str) -> None:
    path = tmp_path / "ports.json"
    path.write_text(found)
    chosen = ports.remembered(path, 2, random.Random(7))
    assert json.loads(path.read_text()) == list(chosen)
