"""One worker process: what it has opened, and what it does when a doorbell rings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from trivet.encoder import Encoder
from trivet.errors import LedgerSchema, LedgerUnavailable
from trivet.ledger import Ledger
from trivet.ledger.queues import served_queues
from trivet.names import Stage
from trivet.settings import Settings
from trivet.stages import commit, prepare
from trivet.stages.context import StageContext, never, open_context
from trivet.stages.lastcall import LastCall
from trivet.stores import ObjectStore

log = structlog.get_logger(__name__)

#: How long a worker rests that has found a ledger of another version, and how often it looks whether it should stop.
_FOREIGN_PAUSE_SECONDS = 5.0
_LOOK_SECONDS = 0.25


class StageProcess:
    """Runs the stages of its roles. Open it in the process that uses it: after the fork, never before."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        store: ObjectStore,
        roles: Sequence[Stage],
        *,
        encoder: Encoder | None = None,
        parent: str = "",
        stopping: Callable[[], bool] = never,
    ) -> None:
        queues = served_queues(encoder.identity.encoder_key, encoder.passport.dtype) if encoder else ()
        self.ctx: StageContext = open_context(
            settings, ledger, store, roles, queues=queues, parent=parent, stopping=stopping
        )
        self._last_call = LastCall(self.ctx)
        #: What was wrong with the ledger's version when it was last said.
        self._foreign = ""
        self._runs: dict[Stage, Callable[[float], bool]] = {
            Stage.PREPARE: lambda deadline: prepare.run(self.ctx, deadline),
            Stage.COMMIT: lambda deadline: commit.run(self.ctx, deadline),
        }
        self._close: list[Callable[[], None]] = []
        if encoder is not None:
            from trivet.stages.embed import EmbedLoop

            loop = EmbedLoop(self.ctx, encoder)
            self._runs[Stage.EMBED] = loop.run
            self._close.append(loop.close)

    def answer(self, stage: Stage, door: str, bell: str) -> None:
        """A doorbell: work on the stage for up to `settings.loop_seconds`, then ring again if work is left.

        A ledger of another version is left alone, for a worker that knows it or until it has been migrated.
        """
        try:
            self._answer(stage, door, bell)
        except LedgerSchema as error:
            if error.message != self._foreign:
                self._foreign = error.message
                log.error("ledger.foreign", error=str(error))
            self._rest()
        else:
            self._foreign = ""

    def _answer(self, stage: Stage, door: str, bell: str) -> None:
        ctx = self.ctx
        ctx.ledger.answer(stage, door, bell, again=False)
        left = True
        try:
            left = self._runs[stage](ctx.clock.monotonic() + ctx.settings.loop_seconds)
        finally:
            if left:
                self._ring_again(stage, door)

    def _rest(self) -> None:
        until = self.ctx.clock.monotonic() + _FOREIGN_PAUSE_SECONDS
        while not self.ctx.stopping() and self.ctx.clock.monotonic() < until:
            self.ctx.clock.sleep(_LOOK_SECONDS)

    def close(self) -> None:
        """Finish what is written, give the rest back."""
        for close in self._close:
            close()
        self.ctx.close()
        self._last_call.close()

    def _ring_again(self, stage: Stage, door: str) -> None:
        try:
            self.ctx.ledger.answer(stage, door, "", again=True)
        except LedgerUnavailable as error:
            log.warning("doorbell.lost", stage=stage, error=error.message)


class _Holder:
    process: StageProcess | None = None
    open: Callable[[], StageProcess] | None = None


def opens_with(factory: Callable[[], StageProcess]) -> None:
    """Say how this process opens its `StageProcess` when the first doorbell comes."""
    _Holder.open = factory


def current() -> StageProcess:
    """The `StageProcess` of this process, opened on first use."""
    if _Holder.process is None:
        assert _Holder.open is not None, "opens_with() comes first"
        _Holder.process = _Holder.open()
    return _Holder.process


def close_current() -> None:
    """Close it, if it was opened."""
    if _Holder.process is not None:
        _Holder.process.close()
        _Holder.process = None
