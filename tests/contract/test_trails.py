"""What every audit log must do, whichever keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from trivet.settings import Settings
from trivet.trail import Trail, entry
from trivet.trail.memory import MemoryTrail
from trivet.trail.redis import RedisTrail


@pytest.fixture(params=["redis", "memory"])
def made(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Trail]]:
    opened: list[Trail] = []

    def make(length: int) -> Trail:
        if request.param == "redis":
            settings: Settings = request.getfixturevalue("settings")
            opened.append(RedisTrail(settings.model_copy(update={"audit_log_length": length})))
        else:
            opened.append(MemoryTrail(Settings(audit_log_length=length)))
        return opened[-1]

    yield make
    for trail in opened:
        trail.close()


def test_entries_come_back_newest_first_and_by_namespace(made: Callable[[int], Trail]) -> None:
    trail = made(1000)
    for number in range(5):
        trail.note(entry(float(number), "ns", "sk_1", f"deed{number}", target="a b", outcome="200", address="10.0.0.1"))
    trail.note(entry(9.0, "other", "cli", "deed"))
    found = trail.entries("ns", 3)
    assert [each.action for each in found] == ["deed4", "deed3", "deed2"]
    assert (found[0].who, found[0].target, found[0].outcome, found[0].address) == ("sk_1", "a b", "200", "10.0.0.1")
    assert trail.entries("nobody", 10) == []


def test_a_log_is_bounded(made: Callable[[int], Trail]) -> None:
    trail = made(100)
    for number in range(600):
        trail.note(entry(float(number), "ns", "sk_1", "deed"))
    found = trail.entries("ns", 10_000)
    # Redis cuts a stream by whole nodes of a hundred entries.
    assert 100 <= len(found) <= 300
    assert found[0].at == 599


def test_no_secret_gets_into_an_entry() -> None:
    key = "sk_0123456789abcdef_" + "5f" * 32
    made = entry(0.0, "ns", key, "get", target="https://u:pw@host/a?sig=abc whsec_QUJDREVGR0hJSg== \r\nx: y")
    text = made.model_dump_json()
    for secret in ("5f5f", "pw@", "sig=", "QUJDREVG", "\\n", "\\r"):
        assert secret not in text
    assert "sk_0123456789abcdef" in text
    assert "https://host/a" in text


def test_an_entry_is_bounded() -> None:
    assert len(entry(0.0, "ns", "w", "a", target="x" * 100_000).target) == 300
