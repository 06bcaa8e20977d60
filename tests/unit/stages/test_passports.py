"""A part's passport is that of whoever made it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.parts import chunk, legs, spec
from tests.unit.stages.desk import CRASHED, Desk, desk, encoder
from trivet.commit import made_by, put_part, read_manifest
from trivet.encoder.fake import FakeEncoder
from trivet.errors import LedgerUnavailable, StoreDamaged
from trivet.ledger.memory import MemoryLedger
from trivet.parts.schema import PASSPORT_KEY
from trivet.parts.writer import part_bytes
from trivet.stages import commit
from trivet.stages.embed import EmbedLoop
from trivet.stores.layout import Layout
from trivet.stores.memory import MemoryStore
from trivet.values import Lease, Manifest, Part, Passport, dump

LAYOUT = Layout("v1", "default", "docs")


def passport(device: str) -> Passport:
    return encoder().passport.model_copy(update={"device": device})


def put(store: MemoryStore, device: str, seed: int = 0) -> Part:
    body = part_bytes([chunk()], legs([4], seed=seed), spec(), "o", {}, passport=passport(device))
    return put_part(
        store,
        LAYOUT,
        object_id="o",
        generation=1,
        shard=0,
        body=body,
        rows=1,
        tokens=4,
        input_hash="ab",
        passport=passport(device),
    )


def test_the_file_itself_says_who_made_it() -> None:
    body = part_bytes([chunk()], legs([4]), spec(), "o", {}, passport=passport("cpu"))
    assert pq.read_metadata(pa.BufferReader(body)).metadata[PASSPORT_KEY.encode()].decode() == dump(passport("cpu"))


def test_a_part_that_was_there_keeps_the_passport_of_its_maker() -> None:
    store = MemoryStore()
    first, second = put(store, "cuda (one)"), put(store, "cpu", seed=1)
    assert first == second
    assert second.passport == passport("cuda (one)").digest != passport("cpu").digest
    assert made_by(store, second.key) == passport("cuda (one)")


def test_a_part_that_says_nothing_has_no_passport() -> None:
    store = MemoryStore()
    key = put(store, "cpu").key
    store.put(key, part_bytes([chunk()], legs([4]), spec(), "o", {}))
    assert put(store, "cpu").passport == ""
    assert made_by(store, key) is None


@pytest.mark.parametrize("body", [b"", b"no parquet", b"PAR1" + bytes(20) + b"PAR1"])
def test_what_is_no_part_is_damage(body: bytes) -> None:
    store = MemoryStore()
    key = put(store, "cpu").key
    store.put(key, body)
    with pytest.raises(StoreDamaged):
        put(store, "cpu")


def _embed(d: Desk, device: str) -> None:
    made: FakeEncoder = encoder()
    made.passport = passport(device)
    loop = EmbedLoop(d.ctx, made)
    loop.run(float("inf"))
    loop.close()


def committed(d: Desk, object_id: str) -> Manifest:
    commit.run(d.ctx, float("inf"))
    found = read_manifest(d.store, d.layout, object_id, 1)
    assert found is not None
    return found


class Deaf(MemoryLedger):
    """Does not hear of the first shard that is done."""

    deaf = True

    def shard_done(self, lease: Lease, part: Part, passport: str) -> None:
        if self.deaf:
            self.deaf = False
            raise LedgerUnavailable("away")
        super().shard_done(lease, part, passport)


def test_the_manifest_says_which_part_was_made_how(tmp_path: Path) -> None:
    with desk(tmp_path, ledger=Deaf(), io_threads=1) as d:
        d.staged("o", [["one"]])
        _embed(d, "cuda (one)")
        assert d.states() == {"embed/0": "leased"}, "written, and the ledger knows nothing of it"
        d.clock.advance(100)
        d.ledger.sweep(lease_seconds=20, max_expiries=5, retention_seconds=1e6, error=CRASHED)
        _embed(d, "cpu")
        manifest = committed(d, "o")
        assert [part.passport for part in manifest.parts] == [passport("cuda (one)").digest]
        assert manifest.passports == (passport("cuda (one)"),)
        assert {made.digest for made in manifest.passports} == {part.passport for part in manifest.parts}
