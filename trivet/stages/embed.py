"""Embed: lease shards of many tasks up to a token budget → encode → write parts.

One thread computes. Shards of the next claim are fetched, and parts of the last one written, beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import structlog
from pydantic import ValidationError

from trivet.commit import made_by, put_part
from trivet.encoder import Encoder, Legs
from trivet.errors import EncoderBroken, LeaseLost, LedgerUnavailable, StoreDamaged
from trivet.faults import fault
from trivet.ledger.queues import served_queues
from trivet.names import Stage
from trivet.parts.outputs import shaped
from trivet.parts.staging import read_shard
from trivet.parts.writer import gather, part_bytes, size_of
from trivet.stages.budget import ForwardBudget
from trivet.stages.context import StageContext, not_understood
from trivet.stages.forward import Failed, Work, forward
from trivet.stages.uploads import Uploads
from trivet.stages.watchdog import BROKEN_STATUS, Watchdog
from trivet.stores.layout import Layout
from trivet.values import Lease, Spec, dump

log = structlog.get_logger(__name__)

#: A claim of tiny shards: more than this is not worth its round trips.
_MOST_SHARDS = 256
#: Redis and S3 are asked for the next claim while this many passes run. On a CPU one takes seconds, and more of them
#: would keep work from a process that has none: with 8 an embed stage of two took a tenth longer for its idle end.
_PASSES_PER_CLAIM, _PASSES_PER_CLAIM_CPU = 8, 2


@dataclass
class _Claim:
    """Leased shards whose chunks are on their way."""

    fetches: list[tuple[Lease, Future[Work]]] = field(default_factory=list)
    #: The ledger did not answer, or was not asked: what waits there is not known.
    unanswered: bool = False


class EmbedLoop:
    """Lives as long as its worker process; `run` is called for each doorbell."""

    def __init__(self, ctx: StageContext, encoder: Encoder, *, exit: Callable[[int], object] = os._exit) -> None:  # noqa: A002 - it is what ends a process
        self._ctx = ctx
        self._exit = exit
        self._encoder = encoder
        self._queues = served_queues(encoder.identity.encoder_key, encoder.passport.dtype)
        self._fetchers = ThreadPoolExecutor(ctx.settings.io_threads, thread_name_prefix="fetch")
        self._uploads = Uploads(ctx.settings.io_threads, ctx.settings.upload_buffer_bytes)
        forward_tokens = ctx.settings.forward_tokens or encoder.pass_tokens
        self._budget = ForwardBudget(forward_tokens)
        passes = _PASSES_PER_CLAIM if encoder.overlaps else _PASSES_PER_CLAIM_CPU
        self._claim_tokens = ctx.settings.claim_tokens or passes * forward_tokens
        self._watchdog = Watchdog(ctx.settings.forward_seconds, clock=ctx.clock, exit=exit)
        self._spec = lru_cache(maxsize=64)(self._load_spec)
        #: Leased, and neither settled nor on its way to S3: what must be given back however a loop ends.
        self._open: dict[tuple[str, int], Lease] = {}

    def run(self, deadline: float) -> bool:
        """Claim and embed until nothing waits, `deadline` (monotonic) has come or the process is asked to stop.

        All that was computed is written when this returns; all that was not is given back, uncharged.
        Returns whether work may be left. An encoder that is broken ends the process.
        """
        claim, left = self._claim(), False
        ahead = _Claim()
        try:
            while claim.fetches:
                if self._stop(deadline):
                    left = True
                    break
                # A suspect stands alone: nothing is leased beside it, and nothing after it before it is written.
                alone = any(lease.alone for lease, _ in claim.fetches)
                ahead = _Claim() if alone else self._claim_on()
                self._compute(claim)
                if not alone and not ahead.fetches:
                    # While parts of the last claim are written, more may have been staged.
                    ahead = self._claim_on()
                if not ahead.fetches:
                    # Suspects are leased only to a worker that holds nothing.
                    self._uploads.drain()
                    ahead = self._claim_on()
                left, claim = ahead.unanswered, ahead
        except EncoderBroken as error:
            self._end(error, ahead)
            raise
        finally:
            left = self._give_back(list(self._open.values())) or left
            self._uploads.drain()
        return left

    def close(self) -> None:
        """Write what is computed and end the threads."""
        self._watchdog.close()
        self._fetchers.shutdown(wait=True, cancel_futures=True)
        self._uploads.close()

    def _end(self, error: EncoderBroken, ahead: _Claim) -> None:
        """Write what is computed, give back what was never tried, and end the process.

        What was being computed is neither charged nor given back: its leases expire, so that each shard is tried alone
        next, and one that breaks encoder after encoder is found.
        """
        log.critical("encoder.broken", worker=self._ctx.worker, error=error.message, exc_info=error)
        self._give_back([lease for lease, _ in ahead.fetches])
        self._open.clear()
        self._uploads.drain()
        self._exit(BROKEN_STATUS)

    def _stop(self, deadline: float) -> bool:
        return self._ctx.stopping() or self._ctx.clock.monotonic() >= deadline

    # ------------------------------------------------------------ claim and fetch

    def _claim(self) -> _Claim:
        ctx = self._ctx
        leases = ctx.ledger.claim(
            Stage.EMBED,
            ctx.worker,
            ctx.operation(),
            queues=self._queues,
            budget=self._claim_tokens,
            most=_MOST_SHARDS,
            lease_seconds=ctx.settings.lease_seconds,
        )
        self._open.update({(lease.item, lease.epoch): lease for lease in leases})
        ctx.keeper.add(leases)
        fault("embed.after_claim")
        return _Claim([(lease, self._fetchers.submit(self._fetch, lease)) for lease in leases])

    def _claim_on(self) -> _Claim:
        """As `_claim`; a ledger that does not answer is no reason to drop what is held. Nothing for one that stops."""
        if self._ctx.stopping():
            return _Claim(unanswered=True)
        try:
            return self._claim()
        except LedgerUnavailable as error:
            log.warning("claim.failed", error=error.message)
            return _Claim(unanswered=True)

    def _fetch(self, lease: Lease) -> Work:
        payload = json.loads(lease.payload)
        spec = self._spec(payload["spec_hash"])
        layout = Layout.of(self._ctx.settings, lease.namespace, lease.collection)
        key = layout.staged(
            lease.object_id, payload["source_sha256"], payload["spec_hash"], lease.n, payload["input_hash"]
        )
        chunks = read_shard(self._ctx.store.get(key)[0])
        longest = max((chunk.token_count for chunk in chunks), default=0)
        if not chunks or longest > self._encoder.identity.max_tokens:
            raise StoreDamaged(
                f"The staged shard {key!r} has {len(chunks)} chunks of up to {longest} tokens, too long for the model."
            )
        return Work(lease, chunks, spec.pipeline.outputs.colbert != "off")

    def _load_spec(self, spec_hash: str) -> Spec:
        try:
            return self._ctx.ledger.spec(spec_hash)
        except ValidationError as error:
            raise not_understood("spec", error) from None

    # ------------------------------------------------------------ compute

    def _compute(self, claim: _Claim) -> None:
        ctx = self._ctx
        works = self._fetched(claim)
        rows: list[list[tuple[Legs, int] | None]] = [[None] * len(work.chunks) for work in works]
        open_chunks = [len(work.chunks) for work in works]
        results = forward(
            self._encoder, works, self._budget, lambda lease: not ctx.keeper.lost(lease), self._watchdog.guard
        )
        for result in results:
            if isinstance(result, Failed):
                self._settle(works[result.work].lease, result.error)
                continue
            for i, row in enumerate(result.rows):
                rows[row.work][row.place] = (result.legs, i)
                open_chunks[row.work] -= 1
                if open_chunks[row.work] == 0:
                    self._write(works[row.work], [found for found in rows[row.work] if found is not None])
                    rows[row.work] = []
            fault("embed.after_forward")
            if ctx.stopping():
                break
        self._give_back([work.lease for work in works if (work.lease.item, work.lease.epoch) in self._open])

    def _settle(self, lease: Lease, error: Exception) -> None:
        self._open.pop((lease.item, lease.epoch), None)
        self._ctx.settle(lease, error)

    def _fetched(self, claim: _Claim) -> list[Work]:
        works = []
        for lease, future in claim.fetches:
            try:
                works.append(future.result())
            except Exception as error:  # noqa: BLE001 - one shard that cannot be read must not stop the others
                self._settle(lease, error)
        return works

    def _give_back(self, leases: Sequence[Lease]) -> bool:
        for lease in leases:
            self._open.pop((lease.item, lease.epoch), None)
            self._ctx.keeper.drop(lease)
        if leases:
            try:
                self._ctx.ledger.release(leases)
            except LedgerUnavailable as error:
                log.warning("release.failed", shards=len(leases), error=error.message)
        return bool(leases)

    # ------------------------------------------------------------ write

    def _write(self, work: Work, rows: Sequence[tuple[Legs, int]]) -> None:
        self._uploads.submit(size_of(rows), lambda: self._put(work, rows))
        del self._open[work.lease.item, work.lease.epoch]

    def _put(self, work: Work, rows: Sequence[tuple[Legs, int]]) -> None:
        ctx, lease = self._ctx, work.lease
        try:
            ctx.keeper.check(lease)
            payload = json.loads(lease.payload)
            spec = self._spec(payload["spec_hash"])
            mine = self._encoder.passport.model_copy(update={"requested_model": spec.model.requested})
            metadata = json.loads(payload["metadata"])
            # Here and not in the thread that computes: copying and pooling take long beside a fast device.
            stored = shaped(gather(rows), spec.pipeline.outputs)
            part = put_part(
                ctx.store,
                Layout.of(ctx.settings, lease.namespace, lease.collection),
                object_id=lease.object_id,
                generation=payload["generation"],
                shard=lease.n,
                body=part_bytes(work.chunks, stored, spec, lease.object_id, metadata, passport=mine),
                rows=len(work.chunks),
                tokens=lease.cost,
                input_hash=payload["input_hash"],
                passport=mine,
            )
            # A part that was there already may be another worker's: the passport is that of its maker.
            maker = mine if part.passport == mine.digest else made_by(ctx.store, part.key)
            fault("embed.before_ledger")
            ctx.ledger.shard_done(lease, part, dump(maker) if maker else "")
            fault("embed.after_ledger")
        except LedgerUnavailable as error:
            # The part is safe on S3: the lease expires, and whoever comes next finds it there.
            log.warning("shard.unreported", item=lease.item, error=error.message)
        except LeaseLost:
            log.info("lease.lost", item=lease.item)
        except Exception as error:  # noqa: BLE001 - whatever the store raises is charged to this shard
            ctx.settle(lease, error)
        finally:
            ctx.keeper.drop(lease)
