"""The way of a delivery: verified, known again or not, read, and done; in this order."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from trivet.clock import Clock, SystemClock
from trivet.errors import IdempotencyConflict, InvalidRequest, SourceError, TooManyRequests, UnknownCollection
from trivet.faults import fault
from trivet.hooks import Getter, Hook, HookBook, Incoming, Producer, Reading, Received, Scheme, Verified, open_scheme
from trivet.hooks.refusals import busy, stale
from trivet.hooks.values import Action, Done, Ingest
from trivet.ids import digest
from trivet.limits import Limiter, Quota, Rate
from trivet.settings import Settings

#: How long a delivery may take; then its sender may try again.
_LEASE_SECONDS = 120.0
_MOST_BYTES = 64 << 10
#: Lines of an answer.
_SHOWN = 100
_DAY_SECONDS = 86_400
_SCHEMES = ("https", "http", "s3", "data")
#: What is wrong with one action; anything else is wrong with the system, and the sender should try again.
_OF_THE_ACTION = (InvalidRequest, UnknownCollection, IdempotencyConflict, SourceError)


@dataclass(frozen=True)
class Receiver:
    """Takes deliveries in. Thread-safe."""

    settings: Settings
    book: HookBook
    limiter: Limiter
    #: Namespace → what sources of it are ingested with.
    producer: Callable[[str], Producer]
    getter: Getter
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def _schemes(self) -> dict[str, Scheme]:
        return {}

    def receive(self, hook_id: str, incoming: Incoming) -> Received:
        """Take one delivery in; sent again, it is known again, and one that was broken off is gone on with.

        Raises `UnknownHook`; `HookRefused` for what is forged or too old; `InvalidRequest` for what cannot be read;
        `TooManyRequests`; `HookBusy`; and `LedgerUnavailable`, whereupon its sender should try again.
        """
        hook = self.book.hook(hook_id)
        scheme, now = self._scheme(hook.scheme), self.clock.now()
        verified = scheme.verify(hook, incoming, now)
        window = max(self.settings.hook_window_seconds, scheme.patience_seconds)
        if verified.at is not None and abs(now - verified.at) > window:
            raise stale(window)
        self._admit(hook)
        owner, delivery = uuid.uuid4().hex, digest(verified.delivery, 32)
        begun = self.book.begin(hook_id, delivery, owner, _LEASE_SECONDS)
        if begun.busy:
            raise busy()
        if begun.outcome is not None:
            return begun.outcome.model_copy(update={"status": "duplicate"})
        try:
            outcome = self._work(hook, verified, scheme.read(hook, incoming))
            fault("hooks.before_finish")
            # Longer than the window, or a delivery could be forgotten while it is still fresh.
            keep = max(self.settings.hook_memory_days * _DAY_SECONDS, 2 * window)
            self.book.finish(hook_id, delivery, outcome, keep)
        except BaseException:
            self.book.give_up(hook_id, delivery, owner)
            raise
        return outcome

    def _scheme(self, name: str) -> Scheme:
        if name not in self._schemes:
            self._schemes[name] = open_scheme(name, self.getter)
        return self._schemes[name]

    def _admit(self, hook: Hook) -> None:
        per_minute = self.settings.hook_rate_per_minute
        rate = self.limiter.take(hook.hook_id, Rate(per_minute, 60.0, per_minute))
        if not rate.allowed:
            raise TooManyRequests(f"The hook takes {per_minute:,} deliveries per minute.", retry_after=rate.retry_after)

    def _work(self, hook: Hook, verified: Verified, reading: Reading) -> Received:
        if reading.confirm:
            self.getter.get(reading.confirm, _MOST_BYTES)
            return Received(hook_id=hook.hook_id, kind=reading.kind, status="confirmed")
        most = self.settings.hook_most_actions
        if len(reading.actions) > most:
            raise InvalidRequest(f"The delivery names {len(reading.actions):,} sources.", hint=f"At most {most:,} fit.")
        self._charge(hook, sum(isinstance(action, Ingest) for action in reading.actions))
        ignored, done = list(reading.ignored), []
        head = f"{hook.hook_id}:{digest(verified.delivery, 24)}"
        for number, action in enumerate(reading.actions):
            fault("hooks.before_action")
            if action.order and not self.book.newest(
                hook.hook_id, action.object_id, action.order, self.settings.hook_memory_days * _DAY_SECONDS
            ):
                ignored.append(f"A later change of {action.object_id} has been here before this one.")
            else:
                done.append(self._do(hook, action, f"{head}:{number}"))
        tasks = [each for each in done if each.task_id]
        return Received(
            hook_id=hook.hook_id,
            kind=reading.kind,
            status="done",
            ingested=sum(each.action == "ingest" for each in tasks),
            deleted=sum(each.action == "delete" for each in tasks),
            refused=len(done) - len(tasks),
            actions=tuple(done[:_SHOWN]),
            ignored=tuple(ignored[:_SHOWN]),
        )

    def _charge(self, hook: Hook, sources: int) -> None:
        most = self.settings.sources_per_day
        if not most or not sources:
            return
        spent = self.limiter.spend(f"sources:{hook.hook_id}", Quota(most, _DAY_SECONDS), sources)
        if not spent.allowed:
            raise TooManyRequests(
                f"The hook has {spent.remaining:,} of its {most:,} sources a day left, and this delivery names "
                f"{sources:,}.",
                retry_after=min(spent.retry_after, _DAY_SECONDS),
            )

    def _do(self, hook: Hook, action: Action, key: str) -> Done:
        """One action. What cannot be ingested as it is, is told of and keeps none of the others back."""
        producer = self.producer(hook.namespace)
        try:
            if isinstance(action, Ingest):
                _check_scheme(action.url)
                handle = producer.ingest(
                    action.url,
                    collection=hook.collection,
                    object_id=action.object_id,
                    idempotency_key=key,
                    metadata=dict(action.metadata),
                    media_type=action.media_type or None,
                )
            else:
                handle = producer.delete(action.object_id, collection=hook.collection, idempotency_key=key)
        except _OF_THE_ACTION as error:
            return Done.of(action, error=str(error))
        return Done.of(action, task_id=handle.task_id)


def _check_scheme(url: str) -> None:
    """Whoever may sign a delivery may not read this machine's files, nor what others have uploaded."""
    if url.strip().partition(":")[0].lower() not in _SCHEMES:
        raise InvalidRequest("A hook takes no URLs of this kind.", hint=f"Use {', '.join(_SCHEMES)}.")
