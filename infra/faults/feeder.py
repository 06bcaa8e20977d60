"""The client of a row: it gives every document in, each with its own idempotency key, until the ledger has taken it."""

from __future__ import annotations

import threading
import time

from infra.faults.judge import Given
from infra.faults.site import Site
from trivet.client import Trivet
from trivet.errors import LedgerUnavailable
from trivet.settings import Settings

COLLECTION = "docs"
_PAUSE_SECONDS = 0.2


class Feeder:
    """A thread. `given` grows as tasks are accepted."""

    def __init__(
        self, settings: Settings, site: Site, tasks: int, *, per_second: float = 0, poison_every: int = 0
    ) -> None:
        self.given: list[Given] = []
        #: Accepts that the ledger did not answer, and that were asked again.
        self.refused = 0
        self.error: Exception | None = None
        self._client = Trivet(settings=settings)
        self._client.create_collection(COLLECTION, exist_ok=True)
        self._site, self._tasks = site, tasks
        self._pause = 1 / per_second if per_second else 0.0
        self._poison_every = poison_every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether every document has been accepted."""
        if self.error is not None:
            raise self.error
        return len(self.given) == self._tasks

    def close(self) -> None:
        """End, done or not."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def ingest(self, number: int) -> str:
        """The task of one document; the same key gives the same task."""
        return self._client.ingest(
            self._site.url(number),
            collection=COLLECTION,
            object_id=f"doc-{number}",
            idempotency_key=f"doc-{number}",
        ).task_id

    def _run(self) -> None:
        try:
            for number in range(self._tasks):
                while not self._stop.is_set():
                    try:
                        task_id = self.ingest(number)
                    except LedgerUnavailable:
                        self.refused += 1
                        self._stop.wait(_PAUSE_SECONDS)
                    else:
                        healthy = not is_poison(number, self._poison_every)
                        self.given.append(Given(task_id, f"doc-{number}", healthy))
                        break
                if self._pause:
                    time.sleep(self._pause)
        except Exception as error:  # noqa: BLE001 - told in the row's own thread
            self.error = error


def is_poison(number: int, every: int) -> bool:
    """Whether this document of a row kills whoever works on it."""
    return every > 0 and number % every == every // 2
