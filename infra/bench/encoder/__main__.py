"""Measure the encoder against every peer that installs, and print the tables.

python -m infra.bench.encoder [--rounds 3] [--engine NAME ...] [--only PART ...] [--again] [--write]

Every engine has a process of its own that loads once; in each round they run one after the other on the same texts, the
peak of bare matrix products right before each of them. Ratios are taken within a round and then summed up, since a
shared machine's speed swings. What was measured is kept under `.trivet/bench/encoder` and not measured again
unless the engine, its packages or Trivet's encoder changed, or `--again` asks for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from infra.bench.encoder.driver import Bench
from infra.bench.encoder.engines import ENGINES, Spec
from infra.bench.encoder.parent import ROOT
from infra.bench.encoder.table import PAGE, page, write
from infra.bench.encoder.workloads import WORKLOADS, Workload
from trivet.settings import Settings

_PARTS = ("load", "rows", "real")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print all that is known."""
    names = [workload.name for workload in WORKLOADS if workload.rounds]
    parser = argparse.ArgumentParser(prog="infra.bench.encoder", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", action="append", default=[], help="its name or the beginning of it; all")
    parser.add_argument("--only", action="append", default=[], choices=[*_PARTS, *names, "none"], help="part to run")
    parser.add_argument("--again", action="store_true", help="measure the chosen engines and parts anew")
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    settings = Settings.load()
    embedded = (settings.models_folder / "embedded").absolute()
    engines = _chosen(options.engine)
    wanted = set(options.only) or {*_PARTS, *(workload.name for workload in WORKLOADS if not workload.optional)}
    workloads = [workload for workload in WORKLOADS if workload.name in wanted]
    home = (settings.state_dir / "bench").absolute()
    bench = Bench(home, embedded, engines)
    if options.again:
        _forget(bench, engines, wanted)
    try:
        _run(bench, wanted, workloads, options.rounds)
    except KeyboardInterrupt:
        print("Broken off; what was measured is kept.", file=sys.stderr)  # noqa: T201 - a command's output
        return 130
    finally:
        bench.close()
    bench.records.write_results(home / "encoder" / "results.json")
    text = page(bench)
    print(text)  # noqa: T201 - a command's output
    if options.write:
        write(PAGE, text)
    return 0


def _run(bench: Bench, wanted: set[str], workloads: Sequence[Workload], rounds: int) -> None:
    bench.rounds(workloads, rounds)
    if "load" in wanted:
        bench.loads()
    if "rows" in wanted:
        bench.rows()
    if "real" in wanted:
        bench.real()


def _chosen(names: Sequence[str]) -> list[Spec]:
    """Engines whose name begins with one of `names`. The reference runs beside them where a ratio needs it."""
    unknown = [name for name in names if not any(_begins(spec, name) for spec in ENGINES)]
    if unknown:
        sys.exit(f"No engine is called {unknown[0]!r}: there are {', '.join(spec.name for spec in ENGINES)}.")
    return [spec for spec in ENGINES if not names or any(_begins(spec, name) for name in names)]


def _begins(spec: Spec, name: str) -> bool:
    return spec.name.lower().replace(" ", "-").startswith(name.lower())


def _forget(bench: Bench, engines: Sequence[Spec], wanted: set[str]) -> None:
    names = {spec.name for spec in engines}
    bench.records.forget(
        lambda record: (
            record.get("engine") in names
            and ({record["kind"], record.get("workload"), record.get("what")} & wanted != set())
        )
    )


if __name__ == "__main__":
    sys.exit(main())
