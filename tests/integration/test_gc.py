"""Garbage collection removes what is left over, never what is visible or active, and nothing without its ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.prose import prose
from tests.support.commits import Wrapped, manifest
from tests.support.plant import Plant, plant
from tests.support.web import Server, answer
from trivet import faults
from trivet.clock import Clock, SystemClock
from trivet.errors import LedgerUnavailable, NotInStore, StoreUnavailable, TransientError, WrongLedger
from trivet.gc import GcReport, collect, collect_forever
from trivet.gc.records import forget_ended
from trivet.ledger.redis import RedisLedger
from trivet.parts.reader import read_parts
from trivet.rebuild import rebuild
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.supervisor.workers import environment
from trivet.values import TaskState

ROOT = Path(__file__).parent.parent.parent
HOUR = 3600.0


class Later(SystemClock):
    """The machine's clock, some time on."""

    def __init__(self, seconds: float) -> None:
        self._ahead = seconds

    def now(self) -> float:
        return super().now() + self._ahead


@pytest.fixture
def source() -> Iterator[Server]:
    server = Server({f"/{n}": answer(prose(n, 800).encode(), Content_Type="text/plain") for n in range(4)})
    yield server
    server.close()


@pytest.fixture
def works(settings: Settings, source: Server, store: ObjectStore) -> Iterator[Plant]:
    with plant(settings.model_copy(update={"allow_addresses": (source.place,), "durable_accept": True}), store) as made:
        yield made


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.disarm()


def round_of(works: Plant, after: float = 48 * HOUR, **how: Any) -> GcReport:
    """One round, as if so much time had passed."""
    clock: Clock = Later(after)
    return collect(works.settings, ledger=works.ledger, store=how.pop("store", works.store), clock=clock, **how)


def keys(works: Plant) -> set[str]:
    """What lies under the collection, without its name."""
    return {found.key.removeprefix(f"{works.layout.root}/") for found in works.store.list(works.layout.root)}


def twice(works: Plant, source: Server) -> str:
    """An object with a replaced generation; its id."""
    task = works.ingested(source.url("/0"), object_id="o")
    source.pages["/0"] = answer(prose(9, 800).encode(), Content_Type="text/plain")
    assert works.state(task) == "completed"
    assert works.state(works.ingested(source.url("/0"), object_id="o")) == "completed"
    return "o"


def test_a_replaced_generation_goes_with_its_plan_and_raw_bytes_and_the_visible_one_stays(
    works: Plant, source: Server
) -> None:
    twice(works, source)
    visible = works.visible("o")
    assert round_of(works, after=HOUR).replaced == 0
    report = round_of(works)
    assert (report.replaced, report.abandoned, report.plans, report.raw) == (1, 0, 1, 1)
    left = keys(works)
    assert not any(key.startswith("objects/o/g/1/") for key in left)
    assert {key for key in left if "/plan/" in key and not key.endswith("plan.json")}
    assert {key.split("/raw/")[1] for key in left if "/raw/" in key} == {visible.source_sha256}
    assert works.visible("o") == visible
    read = read_parts("docs", columns=["chunk_id"], settings=works.settings, store=works.store)
    assert sum(group.table.num_rows for group in read) == visible.receipt.chunks
    # Its plan is there, so that the same content is known to be unchanged.
    assert works.state(works.ingested(source.url("/0"), object_id="o")) == "skipped"
    assert round_of(works).keys == 0 or keys(works) <= left


def test_a_generation_is_kept_for_its_readers_from_the_moment_that_it_is_replaced(works: Plant, source: Server) -> None:
    twice(works, source)
    slow = works.settings.model_copy(update={"generation_retention_hours": 1000.0})
    report = collect(slow, ledger=works.ledger, store=works.store, clock=Later(900 * HOUR))
    # Its raw bytes stay with it.
    assert (report.replaced, report.raw) == (0, 0)


def test_a_generation_that_never_became_visible_goes_after_its_grace(works: Plant, source: Server) -> None:
    works.ingested(source.url("/0"), object_id="o")
    works.store.put(works.layout.part("o", 7, 0, "ab" * 8), b"parts of a task that the ledger has lost")
    durable = manifest(works.layout, 8, object_id="o")
    works.store.put(works.layout.manifest("o", 8), durable.model_dump_json().encode())
    assert round_of(works, after=HOUR).abandoned == 0
    assert round_of(works).abandoned == 2
    assert not {key for key in keys(works) if "/g/7/" in key or "/g/8/" in key}
    assert works.visible("o").generation == 1


def test_what_a_failed_task_left_goes_and_its_object_with_it(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"), object_id="o")
    works.prepare()
    works.ledger.cancel(task)
    report = round_of(works)
    assert (report.plans, report.raw, report.staged, report.intents) == (1, 1, 1, 1)
    assert {key for key in keys(works) if not key.startswith("specs/")} == {"collection.json"}


def test_nothing_of_an_object_with_an_active_or_waiting_task_is_touched(works: Plant, source: Server) -> None:
    twice(works, source)
    source.pages["/0"] = answer(prose(10, 800).encode(), Content_Type="text/plain")
    task = works.accept(source.url("/0"), object_id="o")
    works.prepare()
    before = keys(works)
    report = round_of(works, after=1000 * HOUR)
    assert (report.busy, report.replaced, report.plans, report.raw) == (1, 0, 0, 0)
    assert {key for key in before if key.startswith("objects/")} <= keys(works)
    works.embed()
    works.commit()
    assert works.state(task) == "completed"
    assert round_of(works).replaced == 2


def test_a_task_that_comes_just_before_a_removal_keeps_its_object(works: Plant, source: Server) -> None:
    twice(works, source)
    started: list[str] = []

    def accept() -> None:
        if not started:
            started.append(works.accept(source.url("/0"), object_id="o", metadata={"a": 1}))

    faults.arm("gc.before_shut", accept)
    before = {key for key in keys(works) if key.startswith("objects/")}
    report = round_of(works)
    assert (report.busy, report.replaced) == (1, 0)
    assert before <= keys(works)
    works.run()
    assert works.state(started[0]) == "completed"


@pytest.mark.parametrize("hook", ["gc.after_shut", "gc.before_delete", "gc.before_open"])
def test_a_task_that_comes_during_a_removal_starts_after_it(hook: str, works: Plant, source: Server) -> None:
    twice(works, source)
    source.pages["/0"] = answer(prose(0, 800).encode(), Content_Type="text/plain")
    started: list[str] = []

    def accept() -> None:
        if not started:
            # The content of the generation that is just being removed.
            started.append(works.accept(source.url("/0"), object_id="o"))
            works.run()
            assert works.state(started[0]) == "waiting"

    faults.arm(hook, accept)
    assert round_of(works).replaced == 1
    works.run()
    assert works.state(started[0]) == "completed"
    visible = works.visible("o")
    assert works.store.head(works.layout.raw("o", visible.source_sha256)).size
    for part in visible.parts:
        assert works.store.head(part.key).sha256 == part.sha256


def test_a_commit_between_the_listing_and_the_removal_is_never_hurt(works: Plant, source: Server) -> None:
    works.ingested(source.url("/1"), object_id="o")
    task = works.accept(source.url("/2"), object_id="o")
    works.prepare()
    works.embed()
    done: list[bool] = []

    def commit() -> None:
        if not done:
            done.append(True)
            works.commit()

    faults.arm("gc.before_shut", commit)
    greedy = _greedy(works.settings)
    # By the listing, what is committed here was never visible.
    report = collect(greedy, ledger=works.ledger, store=works.store, clock=Later(60.0))
    assert done
    assert (report.busy, report.abandoned) == (1, 0)
    assert works.state(task) == "completed"
    for part in works.visible("o").parts:
        assert works.store.head(part.key).sha256 == part.sha256


def test_what_a_killed_collector_kept_shut_is_opened(works: Plant, source: Server, clean_env: dict[str, str]) -> None:
    twice(works, source)
    settings = _greedy(works.settings).model_copy(update={"faults": "gc.before_delete:kill:2"})
    code = (
        "import time; from trivet.faults import arm_all; from trivet.gc import collect\n"
        "from trivet.settings import Settings; settings = Settings.load(); arm_all(settings.faults)\n"
        "time.sleep(1.1); collect(settings)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(settings, clean_env), check=False)
    assert killed.returncode == -9
    task = works.accept(source.url("/1"), object_id="o")
    assert works.state(task) == "waiting"
    with pytest.raises(TransientError, match="Another process removes"):
        round_of(works)
    # What half a minute of silence does.
    works.ledger._client.delete(f"{works.settings.redis_prefix}gc_turn")
    round_of(works)
    assert works.state(task) == "queued"
    works.run()
    assert works.state(task) == "completed"


@pytest.mark.parametrize("hook", ["gc.before_delete", "gc.after_shut"])
@pytest.mark.parametrize("successor", ["still at it", "done already", "none"])
def test_a_collector_that_was_stopped_for_long_removes_no_further_key_and_opens_nothing(
    successor: str, hook: str, works: Plant, source: Server
) -> None:
    twice(works, source)
    other = RedisLedger(works.settings)
    seen: list[set[str]] = []

    def stopped() -> None:
        """What others do while this process gets no time: half a minute passes, and one takes over."""
        if seen:
            return
        works.ledger._client.delete(f"{works.settings.redis_prefix}gc_turn")
        if successor != "none":
            assert other.take_turn("gc_turn", "other")
            other.open_what_was_shut("other")
        if successor == "still at it":
            assert other.shut_object("other", "default", "docs", "o")
        if successor == "done already":
            other.end_turn("gc_turn", "other")
        seen.append(keys(works))

    faults.arm(hook, stopped)
    with pytest.raises(TransientError, match="Another process"):
        round_of(works)
    assert keys(works) == seen[0]
    assert works.ledger.object_busy("default", "docs", "o") == (successor != "done already")
    other._client.close()


@pytest.mark.parametrize("hook", ["gc.before_forget", "gc.before_record", "listed"])
def test_the_records_of_a_task_that_is_retried_just_then_are_kept(hook: str, works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"))
    works.prepare()
    ended = works.ledger.now_ms()
    works.ledger.cancel(task)
    retried: list[TaskState] = []

    def retry() -> None:
        if not retried:
            retried.append(works.ledger.retry(task))
            works.prepare()

    if hook == "listed":
        retry()
        # As a look at the list of ended tasks has it, right before a retry takes it off that list.
        works.ledger._client.zadd(f"{works.settings.redis_prefix}terminal", {task: ended})
    faults.arm(hook, retry)
    if hook == "gc.before_record":
        round_of(works)
    else:
        _until(lambda: works.ledger.now_ms() > ended + 200)
        forget_ended(works.settings, works.ledger, works.store, 0)
    assert retried
    assert f"staged/{task}.json" in keys(works)


def test_a_damaged_record_of_a_collection_is_mended_and_stops_no_round(works: Plant, source: Server) -> None:
    twice(works, source)
    good = works.store.get(works.layout.collection_record())[0]
    works.store.put(works.layout.collection_record(), b"{")
    assert round_of(works).replaced == 1
    assert works.store.get(works.layout.collection_record())[0] == good


def test_a_pointer_that_is_listed_and_cannot_be_found_removes_nothing(works: Plant, source: Server) -> None:
    twice(works, source)
    before = keys(works)

    class Blind(Wrapped):
        def get(self, key: str) -> Any:
            if key == works.layout.current("o"):
                raise NotInStore(f"{key} is not there.")
            return super().get(key)

    round_of(works, store=Blind(works.store, lambda verb, key: None), after=1000 * HOUR)
    assert {key for key in before if "/g/" in key} <= keys(works)


def _greedy(settings: Settings) -> Settings:
    return settings.model_copy(update={"gc_grace_hours": 0.0, "generation_retention_hours": 0.0})


def test_rounds_beside_a_running_pipeline_lose_nothing(works: Plant, source: Server) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []
    greedy, ledger = _greedy(works.settings), RedisLedger(works.settings)

    def rounds() -> None:
        try:
            while not stop.is_set():
                # S3 tells whole seconds, so what was written in this one counts as a second old.
                collect(greedy, ledger=ledger, store=works.store, clock=Later(1.0))
        except BaseException as error:  # noqa: BLE001 # it fails the test, below
            failed.append(error)

    collector = threading.Thread(target=rounds)
    collector.start()
    try:
        for n in range(12):
            task = works.ingested(source.url(f"/{n % 3}"), object_id=f"o{n % 2}", metadata={"n": n})
            view = works.view(task)
            assert view.state == "completed", view
            for part in works.visible(view.object_id).parts:
                works.store.head(part.key)
    finally:
        stop.set()
        collector.join()
        ledger._client.close()
    assert failed == []


def test_a_dry_run_says_what_would_go_and_removes_nothing(works: Plant, source: Server) -> None:
    twice(works, source)
    before = keys(works)
    dry = round_of(works, dry_run=True)
    assert keys(works) == before
    real = round_of(works)
    assert dry.dry_run
    assert not real.dry_run
    assert {k: v for k, v in vars_of(dry).items() if k != "dry_run"} == {
        k: v for k, v in vars_of(real).items() if k != "dry_run"
    }
    assert real.keys == len(before) - len(keys(works)) > 0


def vars_of(report: GcReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in GcReport.__dataclass_fields__}


def test_a_wiped_ledger_is_refused_even_when_new_tasks_have_come_in(works: Plant, source: Server) -> None:
    twice(works, source)
    staged = works.accept(source.url("/1"))
    works.prepare()
    round_of(works, after=0)
    before = keys(works)
    works.wipe()
    with pytest.raises(WrongLedger, match="wiped"):
        round_of(works, after=1000 * HOUR)
    works.create_collection()
    works.accept(source.url("/2"))
    with pytest.raises(WrongLedger, match="wiped"):
        round_of(works, after=1000 * HOUR)
    assert before <= keys(works)
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    round_of(works, after=1000 * HOUR)
    works.run()
    assert works.state(staged) == "completed"


def test_an_empty_ledger_beside_a_full_bucket_is_refused_before_any_mark(works: Plant, source: Server) -> None:
    twice(works, source)
    before = keys(works)
    works.wipe()
    with pytest.raises(WrongLedger, match="the ledger is empty and S3 is not"):
        round_of(works)
    assert keys(works) == before


def test_the_ledger_of_another_system_is_refused(works: Plant, source: Server, settings: Settings) -> None:
    twice(works, source)
    round_of(works, after=0)
    other = RedisLedger(settings.model_copy(update={"redis_prefix": f"{settings.redis_prefix}other:"}))
    before = keys(works)
    with pytest.raises(WrongLedger):
        collect(works.settings, ledger=other, store=works.store, clock=Later(1000 * HOUR))
    assert keys(works) == before
    other._client.close()


@pytest.mark.parametrize("away", ["ledger", "store"])
def test_while_one_of_them_is_away_nothing_is_removed(away: str, works: Plant, source: Server) -> None:
    twice(works, source)
    round_of(works, after=0)
    before = keys(works)
    if away == "ledger":
        nowhere = works.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
        with pytest.raises(LedgerUnavailable):
            collect(nowhere, store=works.store, clock=Later(1000 * HOUR))
    else:

        def fail(verb: str, key: str) -> None:
            if verb == "get":
                raise StoreUnavailable("S3 does not answer.")

        with pytest.raises(StoreUnavailable):
            round_of(works, store=Wrapped(works.store, fail))
    assert keys(works) == before


def test_a_round_that_is_cut_short_anywhere_is_finished_by_the_next(works: Plant, source: Server) -> None:
    twice(works, source)
    for nth in range(1, 40):
        seen = 0

        def fail(nth: int = nth) -> None:
            nonlocal seen
            seen += 1
            if seen == nth:
                raise TransientError("Killed here.")

        faults.arm("gc.before_delete", fail)
        try:
            round_of(works)
        except TransientError:
            continue
        finally:
            faults.disarm()
        break
    visible = works.visible("o")
    assert [stored.key for stored in works.store.list(works.layout.generations("o"))] == sorted(
        [works.layout.manifest("o", visible.generation), *(part.key for part in visible.parts)]
    )


def test_a_damaged_pointer_removes_nothing_of_its_object(works: Plant, source: Server) -> None:
    twice(works, source)
    works.store.put(works.layout.current("o"), b"{")
    before = {key for key in keys(works) if key.startswith("objects/")}
    round_of(works, after=1000 * HOUR)
    assert before <= keys(works)


def test_what_somebody_else_has_put_beside_an_object_stays(works: Plant, source: Server) -> None:
    twice(works, source)
    for name in ("note.txt", "plan/x", "g/notes/a", "raw/a/b"):
        works.store.put(f"{works.layout.object('o')}{name}", b"mine")
    round_of(works, after=1000 * HOUR)
    assert {f"objects/o/{name}" for name in ("note.txt", "plan/x", "g/notes/a", "raw/a/b")} <= keys(works)


def test_records_go_when_their_task_has_ended_but_a_key_is_remembered_as_long_as_it_holds(
    works: Plant, source: Server
) -> None:
    plain = works.ingested(source.url("/0"))
    keyed = works.ingested(source.url("/1"), idempotency_key="k")
    active = works.accept(source.url("/2"))
    works.prepare()
    time.sleep(0.1)  # what has ended within the last moment is left to the next call
    since = forget_ended(works.settings, works.ledger, works.store, 0)
    assert {key for key in keys(works) if key.startswith(("staged/", "intents/"))} == {
        f"staged/{keyed}.json",
        f"staged/{active}.json",
        f"intents/{active}.json",
    }
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert works.accept(source.url("/1"), idempotency_key="k") == keyed
    assert works.state(plain) == "completed"
    round_of(works, after=25 * HOUR)
    assert {key for key in keys(works) if key.startswith("staged/")} == {f"staged/{active}.json"}
    assert forget_ended(works.settings, works.ledger, works.store, since) >= since


def test_a_cancelled_task_does_not_come_back_with_a_rebuild(works: Plant, source: Server) -> None:
    task = works.accept(source.url("/0"))
    works.prepare()
    works.ledger.cancel(task)
    time.sleep(0.1)
    forget_ended(works.settings, works.ledger, works.store, 0)
    works.wipe()
    rebuild(works.settings, ledger=works.ledger, store=works.store)
    assert works.state(task) == "unknown"


def test_an_intent_of_a_task_that_is_unknown_is_kept_until_its_retention_is_over(works: Plant) -> None:
    faults.arm("accept.after_intent", _raise)
    with pytest.raises(TransientError):
        works.accept("data:text/plain,hello")
    faults.disarm()
    assert round_of(works, after=24 * HOUR * 6).intents == 0
    assert round_of(works, after=24 * HOUR * 8).intents == 1


def test_abandoned_uploads_are_aborted_and_others_left(works: Plant, source: Server) -> None:
    client, bucket = works.store._client, works.store.bucket  # type: ignore[attr-defined] # the real store's own
    mine, foreign = works.layout.raw("o", "aa"), f"elsewhere-{works.settings.s3_prefix}/x"
    for key in (mine, foreign):
        upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"123")
    works.ingested(source.url("/0"))
    assert round_of(works, after=HOUR).uploads == 0
    assert round_of(works).uploads == 1
    left = {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])}
    assert mine not in left
    assert foreign in left


def test_a_removed_collection_is_no_longer_remembered(works: Plant, source: Server) -> None:
    works.ingested(source.url("/0"))
    works.ledger._client.hdel(f"{works.settings.redis_prefix}collections:default", "docs")
    assert "collection.json" in keys(works)
    round_of(works)
    assert "collection.json" not in keys(works)
    assert works.visible(works.ledger.tasks("default", collection=None, state=None, limit=1)[0].object_id)


def test_the_role_goes_on_after_an_outage_and_ends_when_told(works: Plant, source: Server) -> None:
    twice(works, source)
    quick = _greedy(works.settings).model_copy(update={"gc_seconds": 0.05})
    struck: list[bool] = []

    def once() -> None:
        if not struck:
            struck.append(True)
            raise StoreUnavailable("S3 is away.")

    faults.arm("gc.before_shut", once)
    stop = threading.Event()
    collector = threading.Thread(target=collect_forever, args=(quick, stop.is_set))
    collector.start()
    try:
        _until(lambda: not any("/g/1/" in key for key in keys(works)))
        task = works.accept(source.url("/1"))
        works.ledger.cancel(task)
        _until(lambda: not any(task in key for key in keys(works)))
    finally:
        stop.set()
        collector.join(30)
    assert struck
    assert not collector.is_alive()


def test_the_command_says_what_it_did_and_refuses_in_one_sentence(
    works: Plant, source: Server, clean_env: dict[str, str]
) -> None:
    twice(works, source)
    settings = _greedy(works.settings)

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trivet.cli", "gc", *flags]
        return subprocess.run(
            command, cwd=ROOT, env=environment(settings, clean_env), capture_output=True, text=True, check=False
        )

    dry = json.loads(run("--dry-run", "--json").stdout)
    assert (dry["dry_run"], dry["replaced"]) == (True, 1)
    done = run()
    assert done.returncode == 0, done.stderr
    assert "removed" in done.stderr
    works.wipe()
    refused = run("--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "wrong_ledger"
    assert len(refused.stderr.strip().splitlines()) == 1


def _raise() -> None:
    raise TransientError("Here.")


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)
