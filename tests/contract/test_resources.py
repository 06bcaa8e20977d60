"""What every home of resources must do, in Redis and in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from trivet.clock import SystemClock
from trivet.errors import AlreadyExists
from trivet.resources import Outcome, Resources
from trivet.resources.memory import MemoryResources
from trivet.resources.redis import RedisResources
from trivet.settings import Settings

DAY = 86400.0


@pytest.fixture(params=["redis", "memory"])
def home(request: pytest.FixtureRequest, settings: Settings) -> Resources:
    return RedisResources(settings) if request.param == "redis" else MemoryResources()


class TestAResource:
    def test_is_found_by_its_id_and_by_its_name(self, home: Resources) -> None:
        made = home.create("ns", "bucket", "bkt_1", '{"a": "Grüße"}', name="docs")
        assert made.new
        assert home.get("ns", "bucket", "bkt_1") == home.get("ns", "bucket", "docs") == made
        assert (made.version, made.body) == (1, '{"a": "Grüße"}')

    @pytest.mark.parametrize(("namespace", "kind"), [("other", "bucket"), ("ns", "retriever")])
    def test_is_unknown_in_another_namespace_and_kind(self, home: Resources, namespace: str, kind: str) -> None:
        home.create("ns", "bucket", "bkt_1", "{}", name="docs")
        assert home.get(namespace, kind, "bkt_1") is None
        assert home.get(namespace, kind, "docs") is None
        assert not home.delete(namespace, kind, "bkt_1")
        assert home.get("ns", "bucket", "bkt_1") is not None

    def test_of_the_same_id_stays_as_it_was_made_first(self, home: Resources) -> None:
        home.create("ns", "bucket", "bkt_1", "first", name="docs")
        again = home.create("ns", "bucket", "bkt_1", "second", name="docs")
        assert (again.new, again.body) == (False, "first")

    def test_cannot_take_the_name_of_another(self, home: Resources) -> None:
        home.create("ns", "bucket", "bkt_1", "{}", name="docs")
        with pytest.raises(AlreadyExists, match=r"A bucket called 'docs' exists already: bkt_1\."):
            home.create("ns", "bucket", "bkt_2", "{}", name="docs")
        assert home.get("ns", "bucket", "bkt_2") is None
        home.create("ns", "retriever", "ret_1", "{}", name="docs")

    def test_frees_its_name_when_it_goes(self, home: Resources) -> None:
        home.create("ns", "bucket", "bkt_1", "{}", name="docs")
        assert home.delete("ns", "bucket", "bkt_1")
        assert not home.delete("ns", "bucket", "bkt_1")
        assert home.create("ns", "bucket", "bkt_2", "{}", name="docs").new

    def test_changes_only_from_what_was_read(self, home: Resources) -> None:
        made = home.create("ns", "bucket", "bkt_1", "1")
        changed = home.replace(made, "2")
        assert changed is not None
        assert (changed.body, changed.version) == ("2", 2)
        assert home.replace(made, "3") is None
        assert home.get("ns", "bucket", "bkt_1") == changed
        home.delete("ns", "bucket", "bkt_1")
        assert home.replace(changed, "4") is None
        assert home.get("ns", "bucket", "bkt_1") is None

    def test_is_made_once_by_many_at_the_same_time(self, home: Resources) -> None:
        outcomes: list[str] = []

        def make(number: int) -> None:
            try:
                home.create("ns", "bucket", f"bkt_{number}", "{}", name="docs")
            except AlreadyExists:
                outcomes.append("refused")
            else:
                outcomes.append("made")

        at_once(make, 12)
        assert sorted(outcomes) == ["made"] + ["refused"] * 11
        assert home.count("ns", "bucket") == 1


class TestAList:
    def test_goes_on_where_the_page_before_ended_whatever_comes_and_goes(self, home: Resources) -> None:
        for number in range(7):
            home.create("ns", "bucket", f"bkt_{number}", "{}")
        first = home.page("ns", "bucket", limit=3)
        assert [one.id for one in first] == ["bkt_0", "bkt_1", "bkt_2"]
        home.delete("ns", "bucket", "bkt_1")
        home.create("ns", "bucket", "bkt_a", "{}")
        rest = home.page("ns", "bucket", after=first[-1].number, limit=10)
        assert [one.id for one in rest] == ["bkt_3", "bkt_4", "bkt_5", "bkt_6", "bkt_a"]

    def test_can_be_read_from_its_end(self, home: Resources) -> None:
        for number in range(5):
            home.create("ns", "bucket", f"bkt_{number}", "{}")
        first = home.page_back("ns", "bucket", limit=2)
        assert [one.id for one in first] == ["bkt_4", "bkt_3"]
        rest = home.page_back("ns", "bucket", before=first[-1].number)
        assert [one.id for one in rest] == ["bkt_2", "bkt_1", "bkt_0"]

    def test_is_empty_once_its_kind_is_dropped(self, home: Resources) -> None:
        for number in range(1100):
            home.create("ns", "object/bkt_1", f"obj_{number}", "{}", name=f"n{number}")
        home.create("ns", "object/bkt_2", "obj_1", "{}")
        home.link("ns", "obj_7", {"a": "b"})
        home.drop("ns", "object/bkt_1")
        assert home.page("ns", "object/bkt_1") == []
        assert home.count("ns", "object/bkt_1") == 0
        assert home.links("ns", "obj_7") == {}
        assert home.count("ns", "object/bkt_2") == 1
        assert home.create("ns", "object/bkt_1", "obj_new", "{}", name="n5").new


class TestLinks:
    def test_are_kept_until_they_or_their_resource_go(self, home: Resources) -> None:
        home.create("ns", "batch", "btch_1", "{}")
        home.link("ns", "btch_1", {"a": "1", "b": ""})
        home.link("ns", "btch_1", {"a": "2", "ü": "3"})
        home.link("ns", "btch_1", {})
        assert home.links("ns", "btch_1") == {"a": "2", "b": "", "ü": "3"}
        assert home.links("other", "btch_1") == {}
        home.delete("ns", "batch", "btch_1")
        assert home.links("ns", "btch_1") == {}
        home.link("ns", "loose", {"a": "1"})
        home.unlink("ns", "loose")
        assert home.links("ns", "loose") == {}


class TestAnIdempotencyKey:
    def test_gives_the_answer_that_was_kept(self, home: Resources) -> None:
        assert home.reserve("ns", "k", "print", seconds=DAY).outcome is Outcome.OURS
        assert home.reserve("ns", "k", "print", seconds=DAY).outcome is Outcome.BUSY
        home.answer("ns", "k", "print", '{"id": 1}', seconds=DAY)
        found = home.reserve("ns", "k", "print", seconds=DAY)
        assert (found.outcome, found.answer) == (Outcome.ANSWERED, '{"id": 1}')

    def test_stands_for_one_request_alone(self, home: Resources) -> None:
        home.reserve("ns", "k", "print", seconds=DAY)
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.CONFLICT
        home.answer("ns", "k", "other", "theirs", seconds=DAY)
        home.release("ns", "k", "other")
        assert home.reserve("ns", "k", "print", seconds=DAY).outcome is Outcome.BUSY
        assert home.reserve("another", "k", "other", seconds=DAY).outcome is Outcome.OURS

    def test_is_free_again_once_it_is_released_but_not_once_it_is_answered(self, home: Resources) -> None:
        home.reserve("ns", "k", "print", seconds=DAY)
        home.release("ns", "k", "print")
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.OURS
        home.answer("ns", "k", "other", "kept", seconds=DAY)
        home.release("ns", "k", "other")
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.ANSWERED

    def test_is_free_again_once_whoever_took_it_has_died(self, home: Resources) -> None:
        home.reserve("ns", "k", "print", seconds=0.05)
        SystemClock().sleep(0.2)
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.OURS
        # The first one was only slow: what it says now is not the other's answer.
        home.answer("ns", "k", "print", "late", seconds=DAY)
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.BUSY

    def test_is_held_for_as_long_as_its_request_renews_it(self, home: Resources) -> None:
        home.reserve("ns", "k", "print", seconds=0.5)
        home.renew("ns", "k", "print", seconds=DAY)
        # Another request's renewal counts for nothing, nor does one that comes after the answer.
        home.renew("ns", "k", "other", seconds=0.01)
        SystemClock().sleep(0.6)
        assert home.reserve("ns", "k", "print", seconds=DAY).outcome is Outcome.BUSY
        home.answer("ns", "k", "print", "kept", seconds=DAY)
        home.renew("ns", "k", "print", seconds=0.01)
        SystemClock().sleep(0.1)
        assert home.reserve("ns", "k", "print", seconds=DAY).outcome is Outcome.ANSWERED

    def test_that_has_run_out_is_not_taken_by_a_renewal(self, home: Resources) -> None:
        home.renew("ns", "k", "print", seconds=DAY)
        assert home.reserve("ns", "k", "other", seconds=DAY).outcome is Outcome.OURS

    def test_has_one_seed_for_all_who_ask_until_it_runs_out(self, home: Resources) -> None:
        first = home.seed("ns", "k", seconds=0.3)
        assert len(first) == 32
        assert home.seed("ns", "k", seconds=DAY) == first
        assert home.seed("ns", "other", seconds=DAY) != first
        assert home.seed("another", "k", seconds=DAY) != first
        SystemClock().sleep(0.4)
        assert home.seed("ns", "k", seconds=DAY) != first

    def test_is_taken_once_by_many_at_the_same_time(self, home: Resources) -> None:
        outcomes: list[Outcome] = []
        at_once(lambda _: outcomes.append(home.reserve("ns", "k", "print", seconds=DAY).outcome), 12)
        assert outcomes.count(Outcome.OURS) == 1
        assert outcomes.count(Outcome.BUSY) == 11


def at_once(do: Callable[[int], None], count: int) -> None:
    """Call it so often from threads that start together."""
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        gate.wait(10)
        do(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
