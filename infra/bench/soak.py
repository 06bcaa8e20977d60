"""Mixed load for half an hour: the memory of every process must stay flat.

python -m infra.bench.soak [--minutes 30] [--rate 2] [--fake] [--markdown FILE]

Everything that `trivet up` starts runs, with the embedded model, or with the encoder's twin: `--fake`, where many times
as many documents come through and the index is put in order many times, not twice, so its process is judged there, and
the others without. New documents of several kinds, documents ingested again, broken links, cancels, retries, pauses and
deletes come in at a steady rate, and finished tasks leave after a minute, so that what stays is what leaks. Exit status
1 where a process grew; less than 25 minutes judge nothing.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.demo.documents import Ready, provide
from infra.demo.server import Site, serving
from trivet.client import Trivet
from trivet.errors import TooLate, TrivetError
from trivet.names import Lane
from trivet.settings import Settings
from trivet.supervisor import running, status

_SAMPLE_SECONDS = 10.0
#: Growth from the second fifth of the run (all caches are full by then) to the last: more than both is a leak.
_SHARE, _MIB = 0.10, 16
_RETENTION_MINUTES = 1.0
#: A shorter run ends before all caches and the index are full, and judges nothing.
_JUDGED_MINUTES = 25.0
#: A long document now and then, not every seventh time.
_LONG_EVERY_SECONDS = 120.0
_OBJECTS = 100
#: Its memory is that of an index that was put in order: with a real encoder that comes a quarter of an hour in.
_JUDGED_WITH_THE_TWIN = ("search", "search children")


@dataclass
class Load:
    """What is done to the system, from one random source."""

    client: Trivet
    site: Site
    documents: Sequence[Ready]
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    recent: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    last_long: float = 0.0

    def step(self) -> None:
        """One action."""
        actions = {
            self.ingest: 70,
            self.broken: 6,
            self.cancel: 6,
            self.delete: 8,
            self.retry: 4,
            self.pause: 2,
            self.ask: 4,
        }
        (action,) = self.rng.choices(list(actions), list(actions.values()))
        try:
            action()
            self.done[action.__name__] += 1
        except TooLate:
            self.done["too late to cancel"] += 1
        except TrivetError as error:
            self.done[f"refused: {error.code}"] += 1

    def ingest(self) -> None:
        """A new object, or one of those that are there."""
        names = [ready.source.name for ready in self.documents if not ready.source.name.endswith(".pdf")]
        name = self.rng.choice(names)
        if time.monotonic() - self.last_long > _LONG_EVERY_SECONDS:
            name, self.last_long = (
                next(r.source.name for r in self.documents if r.source.name.endswith(".pdf")),
                time.monotonic(),
            )
        self._send(self.site.url(name))

    def broken(self) -> None:
        """A link that leads nowhere."""
        self._send(self.site.url("nothing-here.html"))

    def cancel(self) -> None:
        """The newest task, wherever it is."""
        if self.recent:
            self.client.task(self.recent[-1]).cancel()

    def delete(self) -> None:
        """One of the objects that are there, or were."""
        if self.seen:
            self.client.delete(self.rng.choice(self.seen), collection="soak")

    def retry(self) -> None:
        """All that failed."""
        self.client.retry_failed(transient_only=False, limit=20)

    def pause(self) -> None:
        """For a moment."""
        self.client.pause("soak", reason="soak")
        time.sleep(0.5)
        self.client.resume("soak")

    def ask(self) -> None:
        """As a dashboard does."""
        self.client.tasks(limit=50)
        self.client.backlog()
        if self.recent:
            self.client.task(self.rng.choice(self.recent)).why()

    def _send(self, url: str) -> None:
        lane = self.rng.choice(list(Lane))
        name = f"object-{self.rng.randrange(_OBJECTS)}"
        # Other metadata: not "unchanged", so it is embedded again.
        metadata = {"n": self.rng.randrange(4)}
        task = self.client.ingest(url, collection="soak", object_id=name, lane=lane, metadata=metadata)
        self.recent = [*self.recent[-99:], task.task_id]
        self.seen = [*self.seen[-99:], name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table, and judge it."""
    parser = argparse.ArgumentParser(prog="infra.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2.0, help="actions per second")
    parser.add_argument("--fake", action="store_true", help="nothing is computed: more documents in the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the table into this file too")
    options = parser.parse_args(arguments)
    given = Settings.load()
    documents = provide(given.state_dir / "cache", _say)
    with tempfile.TemporaryDirectory(prefix="trivet-soak-") as folder, serving(documents) as site:
        settings = given.model_copy(
            update={
                "state_dir": Path(folder),
                "model_dir": given.models_folder.absolute(),
                "allow_addresses": (site.address,),
                "task_retention_days": _RETENTION_MINUTES / 1440,
                "idempotency_hours": _RETENTION_MINUTES / 60,
                "secret_retention_hours": _RETENTION_MINUTES / 60,
                "generation_retention_hours": _RETENTION_MINUTES / 60,
                "gc_grace_hours": 10 * _RETENTION_MINUTES / 60,
                "gc_seconds": 60.0,
                "event_stream_length": 2000,
                "embed_workers": 1,
                **({"model_aliases": {given.embed_model: "fake"}} if options.fake else {}),
            }
        )
        with running(settings, progress=_say) as here:
            client = Trivet(settings=here)
            client.create_collection("soak")
            load = Load(client, site, documents, random.Random(options.seed))
            samples = _run(here, load, options.minutes * 60, options.rate)
            states = client.backlog()["states"]
    text, grown = table(samples, options.minutes)
    grown = [name for name in grown if (name in _JUDGED_WITH_THE_TWIN) is options.fake]
    text += f"\n\nDone: {dict(load.done)}. Left in the ledger: {states}."
    print(text)  # noqa: T201 - a command's output
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.minutes < _JUDGED_MINUTES:
        _say(f"A run of less than {_JUDGED_MINUTES:g} minutes is too short to tell growth from caches that fill.")
        return 0
    for name in grown:
        _say(f"The memory of {name} grew.")
    return 1 if grown else 0


def _run(here: Settings, load: Load, seconds: float, rate: float) -> list[dict[str, float]]:
    samples: list[dict[str, float]] = []
    end, sample_at, act_at = time.monotonic() + seconds, 0.0, 0.0
    while (now := time.monotonic()) < end:
        if now >= act_at:
            load.step()
            act_at = now + load.rng.expovariate(rate)
        if now >= sample_at:
            samples.append(_memory(here))
            sample_at = now + _SAMPLE_SECONDS
        time.sleep(max(0.0, min(act_at, sample_at) - time.monotonic()))
    return samples


def _memory(here: Settings) -> dict[str, float]:
    """Anonymous MiB by process name; children, also those that come and go, are counted together.

    What a process shares with the one that it was forked from counts for both: else a page that only ceases to be
    shared would look like a leak. A parser's fork for one document, which ends with it, is left out.
    """
    found: dict[str, float] = {}
    for process in status(here).processes:
        try:
            top = psutil.Process(process.pid)
            found[process.name] = _anonymous(top)
            children = top.children()
        except psutil.Error:
            continue
        for child in children:
            with suppress(psutil.Error):
                name = f"{process.name} children"
                found[name] = found.get(name, 0.0) + sum(map(_anonymous, (child, *child.children())))
    return found


def _anonymous(process: psutil.Process) -> float:
    memory = process.memory_info()
    # Where the system does not say what of it is files, that counts too.
    return (memory.rss - getattr(memory, "shared", 0)) / (1 << 20)


def table(samples: Sequence[dict[str, float]], minutes: float) -> tuple[str, list[str]]:
    """Markdown, and the names of processes that grew."""
    fifth = len(samples) // 5
    lines = [
        f"{minutes:g} minutes, a sample every {_SAMPLE_SECONDS:g} s; anonymous MiB.",
        "",
        "| process | second fifth, median | last fifth, median | growth | peak |",
        "|---|---|---|---|---|",
    ]
    grown = []
    for name in sorted({name for sample in samples for name in sample}):
        early = statistics.median(sample.get(name, 0.0) for sample in samples[fifth : 2 * fifth] or samples)
        late = statistics.median(sample.get(name, 0.0) for sample in samples[-fifth:] or samples)
        peak = max(sample.get(name, 0.0) for sample in samples)
        if late - early > max(_SHARE * early, _MIB):
            grown.append(name)
        lines.append(f"| {name} | {early:.0f} | {late:.0f} | {late - early:+.1f} | {peak:.0f} |")
    return "\n".join(lines), grown


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress of a command


if __name__ == "__main__":
    sys.exit(main())
