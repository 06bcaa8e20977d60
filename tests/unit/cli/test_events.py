"""Without --follow, events are the newest ones, however long the stream is."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli.events import newest


class _Event:
    def __init__(self, namespace: str) -> None:
        self.data: dict[str, Any] = {"namespace": namespace}


class _Client:
    """A stream of events at the given times in milliseconds."""

    namespace = "default"

    def __init__(self, times: list[int], namespaces: list[str]) -> None:
        self._times = times
        self._namespaces = namespaces
        self.read = 0

    def last_event(self) -> str:
        return f"{self._times[-1]}-0" if self._times else "0-0"

    def events(self, after: str, count: int, block_seconds: float = 0) -> list[tuple[str, _Event]]:
        start = bisect_right(self._times, int(after.partition("-")[0]))
        page = range(start, min(start + count, len(self._times)))
        self.read += len(page)
        return [(f"{self._times[at]}-0", _Event(self._namespaces[at])) for at in page]


@given(
    st.lists(st.tuples(st.integers(1, 2_000_000_000_000), st.sampled_from(["default", "other"]))), st.integers(1, 20)
)
def test_they_are_the_newest_of_the_namespace_in_order(entries: list[tuple[int, str]], count: int) -> None:
    stream = dict(sorted(entries))
    found = newest(_Client(list(stream), list(stream.values())), count)  # type: ignore[arg-type] # stands in for the client
    mine = [f"{at}-0" for at, namespace in stream.items() if namespace == "default"]
    assert [stream_id for stream_id, _ in found] == mine[-count:]


@pytest.mark.parametrize("length", [0, 5_000])
def test_the_end_of_a_long_stream_is_read_without_the_rest(length: int) -> None:
    client = _Client([1_700_000_000_000 + 10_000 * n for n in range(length)], ["default"] * length)
    assert len(newest(client, 100)) == min(length, 100)  # type: ignore[arg-type] # stands in for the client
    assert client.read < 1_000
