"""`trivet tune`: measure what this machine does best, and keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import number, print_json, print_table, say

if TYPE_CHECKING:
    from trivet.settings import Settings
    from trivet.tuning import Figure, Tuning

group = typer.Typer(help="Measure what this machine does best.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="tune")


@group.callback()
def _group() -> None:
    """Keep `encoder` a command of its own while it is the only one."""


@group.command()
def encoder(
    ctx: typer.Context,
    model: Annotated[str, typer.Option(help="Model id; else the one that embed workers serve.")] = "",
    seconds: Annotated[
        float, typer.Option(min=1, max=86_400, help="How long to measure, about; loading comes on top.")
    ] = 100.0,
    allow_int8: Annotated[
        bool, typer.Option("--allow-int8", help="Choose int8 too, where it is fastest and within its tolerance.")
    ] = False,
    json_: JsonFlag = False,
) -> None:
    """Measure dtypes, processes × threads and token budgets; workers that are started later use the best."""
    from trivet.clock import SystemClock
    from trivet.tuning import check_can_keep, keep
    from trivet.tuning.measure import tune

    common: Common = ctx.obj
    settings = common.loaded(**({"embed_model": model} if model else {}))
    check_can_keep(settings)
    found = tune(settings, seconds=seconds, allow_int8=allow_int8, clock=SystemClock(), progress=say)
    keep(settings, found)
    if json_:
        print_json(found.model_dump(mode="json"))
    else:
        _print(settings, found)


def _print(settings: Settings, found: Tuning) -> None:
    from trivet.tuning import path

    columns = ("dtype", ">processes", ">threads", ">tokens per pass", ">tokens/s", ">slowest round", ">fastest", "")
    for title, figures in (("dtypes and layouts", found.figures), ("budgets", found.budgets)):
        print_table(columns, [_row(figure, found) for figure in figures], title=f"{found.model}: {title}")
    for note in found.notes:
        say(note)
    say(f"Chosen: {told(found)}. It is in {path(settings)}; workers that are started from now on use it.")


def _row(figure: Figure, found: Tuning) -> tuple[object, ...]:
    shape = (figure.dtype, figure.processes, figure.threads, figure.forward_tokens)
    chosen = shape == (found.dtype, found.processes, found.threads, found.forward_tokens)
    marks = [name for name, holds in (("chosen", chosen), ("default", figure == found.default)) if holds]
    rounds = (number(figure.tokens_per_second), number(min(figure.rounds)), number(max(figure.rounds)))
    return (*shape, *rounds, ", ".join(marks))


def told(found: Tuning) -> str:
    """The choice in a few words."""
    layout = f"{found.processes} × {found.threads} threads"
    return f"{found.dtype}, {layout}, {number(found.forward_tokens)} tokens per pass"
