"""`trivet model`: which model runs, where it comes from, and whether it computes what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trivet.cli.common import Common, JsonFlag
from trivet.cli.console import print_json, print_table, say
from trivet.errors import TrivetError

if TYPE_CHECKING:
    from trivet.encoder.verify import Chosen, VerifyReport
    from trivet.settings import Settings

group = typer.Typer(help="List, build and verify models.", no_args_is_help=True, rich_markup_mode=None)
_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="model")


@group.command("list")
def list_(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """List the models on disk and the aliases, and what each resolves to."""
    common: Common = ctx.obj
    rows = known_models(common.settings())
    if json_:
        print_json(rows)
    elif rows:
        print_table(
            ("asked for", "runs", "revision", ">dimensions", ">tokens", "problem"),
            [
                (
                    row["requested"],
                    row.get("name"),
                    row.get("revision"),
                    row.get("dimensions"),
                    row.get("max_tokens"),
                    row.get("problem"),
                )
                for row in rows
            ],
        )
    else:
        say("No model is on disk and no alias is set. Build the embedded one: trivet model build")


def known_models(settings: Settings) -> list[dict[str, Any]]:
    """Every model id that means something here: the one embed workers serve, aliases, and folders on disk."""
    from trivet.encoder.layout import CONFIG
    from trivet.encoder.models import resolve

    folder = settings.models_folder
    names = dict.fromkeys([settings.embed_model, *settings.model_aliases])
    found = [path.parent for path in (*folder.glob(f"*/{CONFIG}"), *folder.glob(f"*/*/{CONFIG}"))]
    # A model's folder has folders with a config of their own.
    on_disk = [path for path in found if path.parent not in found]
    names |= dict.fromkeys(str(path.relative_to(folder)) for path in sorted(on_disk))
    # Listing must not download: what only the hub has is a problem here, told as such.
    offline = settings.model_copy(update={"model_hub": False})
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            rows.append(resolve(offline, name).identity.model_dump(mode="json"))
        except TrivetError as error:
            rows.append({"requested": name, "problem": error.message, "hint": error.hint})
    return rows


@group.command()
def build(ctx: typer.Context, json_: JsonFlag = False) -> None:
    """Build the embedded model, a small multilingual one, for machines that reach no model hub."""
    from trivet.embedded.model import build as make
    from trivet.encoder.models import EMBEDDED, resolve

    common: Common = ctx.obj
    settings = common.settings()
    folder = make(settings.models_folder / EMBEDDED)
    identity = resolve(settings, EMBEDDED).identity
    if json_:
        print_json({"folder": str(folder), **identity.model_dump(mode="json")})
    else:
        say(f"{identity.name} is in {folder}. It answers for bge-m3 where this is set:")
        say('TRIVET_MODEL_ALIASES={"BAAI/bge-m3": "embedded"}')


@group.command()
def verify(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="Model id; else the one that embed workers serve.")
    ] = "",
    golden: Annotated[
        bool, typer.Option("--golden", help="Also against the scores of bge-m3's model card (needs its weights).")
    ] = False,
    revision: Annotated[str, typer.Option(help="Hub revision; else the one that Trivet pins.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Compare the encoder with the reference on the same weights. Exit status 1 if they differ."""
    from trivet.encoder.verify import verify as compare

    common: Common = ctx.obj
    settings = common.settings()
    report = compare(settings, model or settings.embed_model, golden, revision=revision)
    if json_:
        print_json(report.model_dump(mode="json"))
    else:
        _print_report(report)
    if not report.passed:
        raise typer.Exit(_FAILED)


def _print_chosen(chosen: Chosen) -> None:
    lost = chosen.numerics
    print_table(
        ("leg", ">cosine or Jaccard, min", ">mean", ">largest difference", ">rank correlation"),
        [
            ("dense", _share(lost.dense_cosine_min), _share(lost.dense_cosine_mean), "", _share(lost.rank_dense)),
            (
                "sparse",
                _share(lost.sparse_jaccard_min),
                _share(lost.sparse_jaccard_mean),
                f"{lost.sparse_weight_gap:.4f} (weight)",
                _share(lost.rank_sparse),
            ),
            ("colbert", "", "", f"{lost.maxsim_gap:.5f} (MaxSim)", _share(lost.rank_colbert)),
        ],
        title=f"{chosen.dtype}, as it runs by default, against fp32 over texts in ten scripts",
    )
    say(
        f"Over all inputs {chosen.dtype} differs from fp32 by at most: dense {chosen.dense:.1e}, sparse "
        f"{chosen.sparse:.1e}, colbert {chosen.colbert:.1e}; smallest dense cosine {chosen.dense_cosine_min:.6f}."
    )
    if chosen.missed:
        says = "and does not start unless forced" if chosen.strict else "which is told, and stops nothing"
        say(f"{chosen.dtype} is outside of its tolerance, {says}: {'; '.join(chosen.missed)}.")


def _share(value: float) -> str:
    return f"{value:.6f}"


def _print_report(report: VerifyReport) -> None:
    def exact(value: float) -> str:
        return f"{value:.1e}"

    print_table(
        ("input", ">tokens", "same ids", ">dense", ">sparse", ">colbert"),
        [
            (
                row.name,
                row.tokens,
                "yes" if row.same_ids else "no",
                exact(row.dense),
                exact(row.sparse),
                exact(row.colbert),
            )
            for row in report.inputs
        ],
        title=f"{report.model.name}, {report.backend} on {report.device}, against {report.reference}: "
        "largest absolute difference in fp32",
    )
    _print_chosen(report.chosen)
    if report.golden:
        rows = [(row.name, f"{row.published:.4f}", f"{row.ours:.4f}") for row in report.golden]
        print_table(("published score", ">model card", ">ours"), rows)
    say(
        "Passed."
        if report.passed
        else f"Failed: a difference is over {report.tolerance:g}, a tolerance or a published score is missed."
    )
