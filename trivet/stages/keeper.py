"""Keeps this process' leases alive from a thread of its own, and knows which were lost."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import structlog

from trivet.errors import LedgerSchema, LedgerUnavailable
from trivet.ledger import Ledger
from trivet.ledger.refusals import lease_lost
from trivet.names import Stage
from trivet.settings import Settings
from trivet.values import Lease

log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Heartbeats every `settings.heartbeat_seconds` while it is open. Thread-safe.

    Leases are known by (item, epoch): a worker that claims its own lost item again holds another lease.
    """

    def __init__(self, ledger: Ledger, settings: Settings, worker: str, roles: Sequence[Stage], info: str) -> None:
        self._ledger = ledger
        self._settings = settings
        self._worker = worker
        self._roles = roles
        self._info = info
        self._held: dict[tuple[str, int], Lease] = {}
        self._lost: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    def add(self, leases: Iterable[Lease]) -> None:
        """Keep these from now on."""
        with self._lock:
            self._held.update({(lease.item, lease.epoch): lease for lease in leases})

    def drop(self, lease: Lease) -> None:
        """Keep it no longer: it is done, failed, given back or lost."""
        with self._lock:
            self._held.pop((lease.item, lease.epoch), None)
            self._lost.discard((lease.item, lease.epoch))

    def lost(self, lease: Lease) -> bool:
        """Whether the ledger has said that the lease is no longer ours."""
        return (lease.item, lease.epoch) in self._lost

    def check(self, lease: Lease) -> None:
        """Raise `LeaseLost` if it is."""
        if self.lost(lease):
            raise lease_lost(lease.item)

    @property
    def held(self) -> list[Lease]:
        """What is kept right now."""
        with self._lock:
            return list(self._held.values())

    def beat(self) -> None:
        """One heartbeat, now."""
        held = self.held
        lost = self._ledger.heartbeat(
            self._worker,
            held,
            lease_seconds=self._settings.lease_seconds,
            roles=self._roles,
            info=self._info,
        )
        if lost:
            log.warning("leases.lost", items=sorted(lost), worker=self._worker)
            with self._lock:
                # What was settled while the ledger answered is not lost.
                keys = {(lease.item, lease.epoch) for lease in held if lease.item in lost}
                self._lost |= keys & self._held.keys()

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        said = ""
        while not self._stop.is_set():
            try:
                self.beat()
            except LedgerUnavailable as error:
                # A ledger of another version may stay that way for long: once is enough.
                if error.message != said:
                    log.warning("heartbeat.failed", error=error.message)
                said = error.message if isinstance(error, LedgerSchema) else ""
            except Exception:
                # A thread that ends takes all leases of the process with it.
                log.exception("heartbeat.crashed")
            self._stop.wait(self._settings.heartbeat_seconds)
