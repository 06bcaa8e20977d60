"""`trivet eval`: how well a model and its fusions find what people judged relevant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag, validated
from trivet.cli.console import counted, print_json, print_table, say
from trivet.cli.search_options import parse_weights
from trivet.errors import InvalidRequest

if TYPE_CHECKING:
    from trivet.evaluation import Evaluation, Interval, Row
    from trivet.retrieval import Fusion

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("eval")(evaluate)


def evaluate(
    ctx: typer.Context,
    datasets: Annotated[list[Path], typer.Argument(metavar="DATASET…", help="Folders: BEIR, MIRACL or MLDR.")],
    model: Annotated[str, typer.Option(help="Model id; else the one that embed workers serve.")] = "",
    split: Annotated[str, typer.Option(help="Such as dev; else test, dev, validation or train.")] = "",
    fusion: Annotated[list[str] | None, typer.Option(help="weighted, rrf, dbsf or max; else all four.")] = None,
    weights: Annotated[str, typer.Option(help="Weight per leg, such as dense=1,sparse=0.3,colbert=4.")] = "",
    normalization: Annotated[str, typer.Option(help="Of weighted: zscore, minmax, theoretical or none.")] = "zscore",
    max_tokens: Annotated[int, typer.Option(min=0, help="Cut texts here; 0: what the model takes.")] = 0,
    depth: Annotated[int, typer.Option(min=100, help="Documents that each leg lists per query.")] = 1000,
    colbert_candidates: Annotated[
        int, typer.Option(min=0, help="ColBERT ranks the best so many of the dense leg; 0: all documents.")
    ] = 0,
    draws: Annotated[int, typer.Option(min=100, help="Samples of the bootstrap.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(help="Such as nDCG@10=0.7: exit status 1 where the first fusion is under it on any dataset."),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Measure every leg and every fusion on datasets on disk.

    Exact: every document is scored. Legs are kept in the state folder, so a second run is quick.
    """
    from trivet.evaluation.datasets import read_dataset
    from trivet.evaluation.encoding import TextEncoder
    from trivet.evaluation.evaluate import Gate, Plan
    from trivet.evaluation.evaluate import evaluate as measure
    from trivet.parts.arrow import np

    common: Common = ctx.obj
    gates = [Gate.of(text) for text in fail_under or ()]
    fusions = _fusions(fusion or [], weights, normalization)
    plan = Plan(fusions, depth=depth, colbert_candidates=colbert_candidates, draws=draws)
    settings = common.loaded()
    encoder = TextEncoder(
        settings,
        model or settings.embed_model,
        max_tokens=max_tokens,
        said=lambda count: say(f"{counted(count, 'text')} encoded."),
    )
    # One at a time: a corpus may fill the memory.
    found = [measure(read_dataset(folder, split), encoder, plan, np.random.default_rng(seed)) for folder in datasets]
    failures = [why for gate in gates for one in found for why in gate.failures(one, next(iter(fusions)))]
    if json_:
        print_json({"evaluations": [one.model_dump(mode="json") for one in found], "failures": failures})
    else:
        for one in found:
            _print(one)
    for why in failures:
        say(why)
    if failures:
        raise typer.Exit(_FAILED)


def _fusions(names: list[str], weights: str, normalization: str) -> dict[str, Fusion]:
    from trivet.retrieval import Fusion
    from trivet.retrieval.fusion import METHODS

    if unknown := [name for name in names if name not in METHODS]:
        raise InvalidRequest(
            f"No fusion method is called {unknown[0][:40]!r}.", hint=f"Choose of {', '.join(METHODS)}."
        )
    given: dict[str, Any] = {"weights": parse_weights(weights)} if weights else {}
    chosen = names or ["weighted", *(name for name in METHODS if name != "weighted")]
    return {
        name: validated(Fusion, method=name, normalization=normalization, **given) for name in dict.fromkeys(chosen)
    }


def _print(found: Evaluation) -> None:
    measures = list(found.rows[0].figures)
    title = (
        f"{found.dataset} ({found.split}): {counted(found.documents, 'document')}, {found.queries:,} queries; "
        f"{found.model.name} {found.model.revision[:12]}; mean, and {found.level:.0%} of the bootstrap"
    )
    print_table(("", *measures, "nDCG@10 − best leg"), [_cells(row, measures) for row in found.rows], title=title)
    for note in found.notes:
        say(f"{found.dataset}: {note}")


def _cells(row: Row, measures: list[str]) -> list[str]:
    gain = row.gain.get("nDCG@10")
    figures = [_interval(row.figures[name]) for name in measures]
    return [row.name, *figures, _interval(gain, "+") if gain else ""]


def _interval(found: Interval, sign: str = "") -> str:
    return f"{found.mean:{sign}.3f} ({found.low:{sign}.3f} … {found.high:{sign}.3f})"
