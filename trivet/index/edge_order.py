"""Puts shards of the embedded index in order: graphs are built in a copy, which then takes the shard's place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import qdrant_edge as qe

from trivet.errors import IndexUnavailable
from trivet.index import SCANNED_NUMBERS, Space
from trivet.index.edge_shards import Shards
from trivet.index.edge_words import carry
from trivet.machine import return_free_memory

#: Objects that are carried while writes wait.
_LAST = 4
#: A shard is put in order when so large a share of it was written since.
_SHARE = 0.5
_WIDE = 1024


class Order:
    """Of one folder's shards; one thread at a time asks for it."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        #: The process that puts a shard in order.
        self.process: subprocess.Popen[str] | None = None

    def end(self) -> None:
        """Cut short what is being put in order."""
        with self._shards.lock:
            if self.process is not None:
                self.process.kill()

    def bring(self) -> bool:
        """Put in order what is worth it; True where something was. Raises `IndexUnavailable`."""
        with self._shards.lock:
            worth = [space for space, shard in self._shards.open.items() if self._worth(space, shard)]
        for space in worth:
            self._order(space)
        if worth:
            # A shard was loaded, objects were carried, and the old shard went: a quarter of a GiB within two rounds.
            return_free_memory()
        return bool(worth)

    def _worth(self, space: Space, shard: qe.EdgeShard) -> bool:
        written = self._shards.written[space]
        least = SCANNED_NUMBERS // max(space.dense, _WIDE)
        return written >= least and written >= _SHARE * int(shard.info().points_count)

    def _order(self, space: Space) -> None:
        """Order a copy in another process, carry over what was written meanwhile, and put it in the shard's place."""
        path, shard = self._shards.path(space), self._shards.get(space)
        copy = path.with_name(f".copy-{path.name}")
        assert shard is not None
        try:
            with self._shards.writing:
                with self._shards.guard(space):
                    shard.flush()
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(path, copy)
                self._shards.touched[space], self._shards.written[space] = set(), 0
            self._ordered(space, copy)
            with self._shards.guard(space):
                self._replace(space, shard, copy)
        finally:
            self._shards.touched.pop(space, None)
            shutil.rmtree(copy, ignore_errors=True)

    def _ordered(self, space: Space, copy: Path) -> None:
        with self._shards.lock:
            if self._shards.closed:
                raise IndexUnavailable("The index is closed.")
            command = [sys.executable, "-m", "trivet.index.ordering", str(copy)]
            self.process = subprocess.Popen(  # noqa: S603 - this very interpreter
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        _, said = self.process.communicate()
        status, self.process = self.process.returncode, None
        if status != 0:
            last = (said.strip().splitlines() or [f"status {status}"])[-1]
            raise IndexUnavailable(
                f"The index of {space.namespace}/{space.collection} could not be put in order: {last[:300]}."
            )

    def _replace(self, space: Space, shard: qe.EdgeShard, copy: Path) -> None:
        fresh = qe.EdgeShard.load(str(copy))
        while True:
            with self._shards.writing:
                if self._shards.closed:
                    raise IndexUnavailable("The index is closed.")
                touched, self._shards.touched[space] = self._shards.touched[space], set()
                if len(touched) <= _LAST:
                    carry(shard, fresh, touched)
                    fresh.flush()
                    fresh.close()
                    self._shards.swap(space, copy)
                    return
            carry(shard, fresh, touched)
