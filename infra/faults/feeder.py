"""The client of a row: it gives every document in, each with its own idempotency key, until the ledger has taken it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from infra.faults.fleet import ROOT
from infra.faults.judge import Given
from infra.faults.site import Site
from trivet.client import Trivet
from trivet.embedded.process import Child, spawn
from trivet.errors import LedgerUnavailable, UnknownCollection, UnknownTask
from trivet.settings import Settings
from trivet.supervisor.workers import environment
from trivet.values import Outputs, Pipeline

COLLECTION = "docs"
#: ColBERT's vectors are most of a part's bytes, and no fault cares.
_PIPELINE = Pipeline(outputs=Outputs(colbert="off"))
_PAUSE_SECONDS = 0.2


def ingest(client: Trivet, site: Site, number: int) -> str:
    """The task of one document; the same key gives the same task."""
    key = f"doc-{number}"
    return client.ingest(site.url(number), collection=COLLECTION, object_id=key, idempotency_key=key).task_id


def is_poison(number: int, every: int) -> bool:
    """Whether this document of a row kills whoever works on it."""
    return every > 0 and number % every == every // 2


class Feeder(Protocol):
    """What a row needs to know of its client."""

    #: Documents in all.
    tasks: int

    @property
    def given(self) -> list[Given]:
        """The tasks that were accepted so far."""
        ...

    @property
    def done(self) -> bool:
        """Whether every document has been accepted."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def close(self) -> None:
        """End, done or not."""
        ...

    def give_unknown_again(self, ended: Mapping[str, str]) -> int:
        """Documents whose task has not ended and is unknown to the ledger: in again; how many those were."""
        ...


class ThreadFeeder:
    """In a thread of this process, `per_second` documents in each second (0: as fast as they are taken)."""

    def __init__(
        self, settings: Settings, site: Site, tasks: int, *, per_second: float = 0, poison_every: int = 0
    ) -> None:
        self.tasks = tasks
        self.given: list[Given] = []
        #: Accepts that the ledger did not answer, and that were asked again.
        self.refused = 0
        self._error: Exception | None = None
        self._client = Trivet(settings=settings)
        self._client.create_collection(COLLECTION, pipeline=_PIPELINE)
        self._site = site
        self._pause = 1 / per_second if per_second else 0.0
        self._poison_every = poison_every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        if self._error is not None:
            raise self._error
        return len(self.given) == self.tasks

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def give_unknown_again(self, ended: Mapping[str, str]) -> int:
        again = 0
        for place, task in enumerate(self.given):
            if task.task_id in ended:
                continue
            try:
                self._client.task(task.task_id).status()
            except UnknownTask:
                number = int(task.object_id.removeprefix("doc-"))
                self.given[place] = Given(ingest(self._client, self._site, number), task.object_id, task.healthy)
                again += 1
        return again

    def _run(self) -> None:
        try:
            for number in range(self.tasks):
                self._give(number)
                self._stop.wait(self._pause)
        except Exception as error:  # noqa: BLE001 - raised in the row's own thread, by `done`
            self._error = error

    def _give(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                task_id = ingest(self._client, self._site, number)
            except (LedgerUnavailable, UnknownCollection):
                # A collection is unknown between the loss of Redis and the end of a rebuild.
                self.refused += 1
                self._stop.wait(_PAUSE_SECONDS)
            else:
                self.given.append(Given(task_id, f"doc-{number}", not is_poison(number, self._poison_every)))
                return


class ProcessFeeder:
    """In a process that can be killed; it goes on with the first document to which it has no answer."""

    def __init__(self, settings: Settings, site: Site, tasks: int, folder: Path) -> None:
        self.tasks = tasks
        self._settings, self._site = settings, site
        self._answers, self._log = folder / "answers", folder / "feed.log"
        self._child: Child | None = None
        Trivet(settings=settings).create_collection(COLLECTION, pipeline=_PIPELINE)

    @property
    def given(self) -> list[Given]:
        # The last line may be half of one: whoever wrote it was killed.
        lines = self._answers.read_text().split("\n")[:-1] if self._answers.exists() else []
        known = dict(line.split() for line in lines)
        return [Given(task_id, f"doc-{number}") for number, task_id in known.items()]

    @property
    def done(self) -> bool:
        return len(self.given) == self.tasks

    def start(self) -> None:
        if self._answers.exists():
            text = self._answers.read_text()
            self._answers.write_text(text[: text.rfind("\n") + 1])
        first = str(len(self.given))
        place = [self._site.place, first, str(self.tasks), str(self._answers)]
        argv = [sys.executable, "-m", "infra.faults.feed", *place]
        self._child = spawn("feed", argv, log=self._log, env=environment(self._settings, os.environ), cwd=ROOT)

    def kill(self) -> int:
        """Kill it and start another; 1 if it was alive."""
        assert self._child is not None, "start() comes first"
        alive = self._child.running()
        if alive:
            os.kill(self._child.pid, signal.SIGKILL)
        self._child.end()
        self.start()
        return int(alive)

    def close(self) -> None:
        if self._child is not None:
            self._child.end()

    def give_unknown_again(self, ended: Mapping[str, str]) -> int:
        raise NotImplementedError("Only a client that lives asks again.")
