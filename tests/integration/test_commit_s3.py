"""The commit on the real S3: boto3's own retries, lost answers, racing and killed committers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.support.commits import Wrapped, interleavings, manifest
from tests.support.s3_proxy import WRITE_MISHAPS, S3Proxy
from trivet.clock import ManualClock
from trivet.commit import FAULTS, Foreign, Published, Superseded, publish, read_floor, read_manifest, read_pointer
from trivet.settings import Settings
from trivet.stores.layout import Layout
from trivet.stores.s3 import ATTEMPTS, S3Store
from trivet.values import Manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def layout(settings: Settings) -> Layout:
    return Layout.of(settings, "default", "docs")


@pytest.fixture
def proxy(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    with S3Proxy(settings.s3_endpoint) as proxy:
        proxy.without_pauses(monkeypatch)
        yield proxy


@pytest.mark.parametrize("mishap", WRITE_MISHAPS[1:])
def test_whatever_becomes_of_a_write_the_generation_is_published_once(
    settings: Settings, store: S3Store, layout: Layout, proxy: S3Proxy, mishap: str
) -> None:
    proxied = S3Store(settings.model_copy(update={"s3_endpoint": proxy.url}))
    # The manifest or current.json; once or at every retry of boto3; a first generation or one that replaces another.
    for number, (which, times, earlier) in enumerate(product((0, 1), (1, ATTEMPTS), (False, True))):
        name = f"obj_{number}"
        if earlier:
            publish(store, layout, manifest(layout, 1, task="task_0", object_id=name))
        value = manifest(layout, 2, object_id=name)
        proxy.mishaps = ["ok"] * which + [mishap] * times
        outcome = publish(proxied, layout, value, clock=ManualClock())
        assert proxy.mishaps == []
        current = read_pointer(store, layout, name)
        assert current is not None
        assert outcome == Published(layout.manifest(name, 2), value, current)
        assert (current.generation, current.task_id) == (2, "task_a")
        assert read_manifest(store, layout, name, 2) == value
        assert read_floor(store, layout, name)[1] == 2


@pytest.mark.parametrize("name", FAULTS)
def test_killed_at_any_step_the_next_committer_finishes(
    settings: Settings, store: S3Store, layout: Layout, name: str, tmp_path: Path
) -> None:
    value = manifest(layout, 1)
    code = (
        "import sys; from trivet.settings import Settings; from trivet.stores import open_store\n"
        "from trivet.stores.layout import Layout; from trivet.values import Manifest\n"
        "from trivet.commit import publish; from trivet.faults import arm_all\n"
        "settings = Settings.load(); arm_all(settings.faults)\n"
        "layout = Layout.of(settings, 'default', 'docs')\n"
        "publish(open_store(settings), layout, Manifest.model_validate_json(sys.argv[1]))"
    )
    environment = {
        "TRIVET_S3_ENDPOINT": settings.s3_endpoint,
        "TRIVET_S3_BUCKET": settings.s3_bucket,
        "TRIVET_S3_PREFIX": settings.s3_prefix,
        "TRIVET_S3_ACCESS_KEY": settings.s3_access_key,
        "TRIVET_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "TRIVET_FAULTS": f"{name}:kill:1:{tmp_path / 'struck'}",
    }
    command = [sys.executable, "-c", code, value.model_dump_json()]
    killed = subprocess.run(command, env=environment, cwd=ROOT, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    done = FAULTS.index(name)
    assert (read_manifest(store, layout, "obj_1", 1) is not None) == (done >= 1)
    assert (read_pointer(store, layout, "obj_1") is not None) == (done >= 3)
    assert isinstance(publish(store, layout, value), Published)
    current = read_pointer(store, layout, "obj_1")
    assert current is not None
    assert current.task_id == "task_a"


def committers(store: S3Store, layouts: Iterator[Layout], *values: Callable[[Layout], Manifest]) -> Any:
    """For `interleavings`: committers of one object on the real store, each time under a prefix of its own."""

    def make() -> list[Any]:
        layout = next(layouts)

        def body(step: Callable[[], None], value: Callable[[Layout], Manifest]) -> Any:
            gated = Wrapped(store, lambda verb, key: step())
            return publish(gated, layout, value(layout), clock=ManualClock()), layout

        return [partial(body, value=value) for value in values]

    return make


@pytest.fixture
def layouts(layout: Layout) -> Iterator[Layout]:
    return (Layout(f"{layout.prefix}/{n}", layout.namespace, layout.collection) for n in range(10_000))


def test_of_two_generations_the_higher_is_visible_in_every_interleaving(
    store: S3Store, layouts: Iterator[Layout]
) -> None:
    make = committers(store, layouts, lambda it: manifest(it, 1), lambda it: manifest(it, 2, task="task_b"))
    for (low, layout), (high, _) in interleavings(make):
        assert isinstance(high, Published)
        assert isinstance(low, Published | Superseded)
        current = read_pointer(store, layout, "obj_1")
        assert current is not None
        assert current.generation == 2


def test_of_two_tasks_with_one_number_exactly_one_publishes_in_every_interleaving(
    store: S3Store, layouts: Iterator[Layout]
) -> None:
    make = committers(store, layouts, lambda it: manifest(it, 1), lambda it: manifest(it, 1, task="task_b"))
    for (one, layout), (two, _) in interleavings(make):
        assert sorted((type(one), type(two)), key=str) == [Foreign, Published]
        current = read_pointer(store, layout, "obj_1")
        assert current is not None
        assert current.task_id == ("task_a" if isinstance(one, Published) else "task_b")


def test_committers_that_race_on_many_objects_leave_each_highest_generation_visible(
    store: S3Store, layout: Layout
) -> None:
    objects, generations = 3, 4
    barrier = threading.Barrier(objects * generations)

    def commit(entry: tuple[int, int]) -> Any:
        number, generation = entry
        barrier.wait()
        return publish(store, layout, manifest(layout, generation, task=f"t{generation}", object_id=f"obj_{number}"))

    entries = [(number, generation) for number in range(objects) for generation in range(1, generations + 1)]
    with ThreadPoolExecutor(len(entries)) as pool:
        outcomes = dict(zip(entries, pool.map(commit, entries), strict=True))
    for number in range(objects):
        current = read_pointer(store, layout, f"obj_{number}")
        assert current is not None
        assert current.generation == generations
        assert isinstance(outcomes[number, generations], Published)
        assert all(isinstance(outcomes[number, g], Published | Superseded) for g in range(1, generations))
