"""Which ledger belongs to a bucket: the same random mark stands in both.

Garbage collection asks the ledger what is still needed. One that was wiped would say: nothing. It has lost its mark as
well, even if new tasks have come in since; so whoever removes something looks here first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from trivet.errors import StoreConflict, WrongLedger
from trivet.faults import fault
from trivet.ledger.redis_restoring import RedisRestoring
from trivet.rebuild.records import layouts
from trivet.settings import Settings
from trivet.stores import ObjectStore
from trivet.stores.layout import ledger_mark, top
from trivet.stores.values import read_value
from trivet.values import Frozen, dump

_HINT = "Run `trivet rebuild` if Redis was wiped or replaced; nothing is removed from S3 before that."


class Mark(Frozen):
    """`ledger.json`."""

    mark: str


def check_mark(settings: Settings, ledger: RedisRestoring, store: ObjectStore) -> str:
    """The mark that ledger and bucket bear; where neither has one, both get it. Raises `WrongLedger` where they differ.

    An empty ledger beside a bucket with something in it is refused also where no mark was ever set.
    """
    there, here = _read(settings, store), ledger.mark()
    if there and here == there:
        return there
    where = f"Redis with prefix {settings.redis_prefix!r} and S3 under {top(settings) or '/'!r}"
    if there:
        raise WrongLedger(f"{where} do not belong together, or the ledger was wiped.", hint=_HINT)
    if ledger.empty() and any(True for layout in layouts(settings, store) for _ in store.list(f"{layout.root}/")):
        raise WrongLedger(f"{where} do not fit: the ledger is empty and S3 is not.", hint=_HINT)
    return _agree(settings, ledger, store, lambda: here or secrets.token_hex(16))


def check_still(ledger: RedisRestoring, mark: str) -> None:
    """Raise `WrongLedger` where the ledger bears this mark no more: it was wiped while somebody worked by it."""
    if ledger.mark() != mark:
        raise WrongLedger("The ledger was wiped or replaced meanwhile.", hint=_HINT)


def adopt_mark(settings: Settings, ledger: RedisRestoring, store: ObjectStore) -> None:
    """The ledger has all that S3 remembers: they belong together from now on."""
    _agree(settings, ledger, store, lambda: ledger.mark() or secrets.token_hex(16))


def _agree(settings: Settings, ledger: RedisRestoring, store: ObjectStore, make: Callable[[], str]) -> str:
    mark = _read(settings, store)
    if not mark:
        mark = make()
        # The ledger's first: one that is cut short before its own, with one on S3, would look wiped for good.
        ledger.set_mark(mark)
        try:
            store.put(ledger_mark(settings), dump(Mark(mark=mark)).encode(), if_none_match=True)
        except StoreConflict:
            mark = _read(settings, store)
    fault("mark.before_ledger")
    ledger.set_mark(mark)
    return mark


def _read(settings: Settings, store: ObjectStore) -> str:
    found = read_value(store, ledger_mark(settings), Mark)
    return found[0].mark if found else ""
