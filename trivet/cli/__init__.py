"""The command line. One module per group of commands; each loads what it needs when it is called.

Exit status: 0 done; 1 it failed, or `doctor` found something; 2 a wrong argument, an unknown collection or task;
3 something that it needs is not there (Redis, S3, a model, a package); 130 Ctrl-C.

An error is one sentence on stderr. With `--json` it is an object on stdout too, and nothing else is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from trivet.cli import (
    audit,
    collection,
    deletes,
    doctor,
    endpoints,
    evaluation,
    events,
    hooks,
    index,
    ingest,
    keys,
    models,
    repair,
    search,
    system,
    tasks,
    tune,
    verbs,
)
from trivet.cli.common import Common, start_hint, warn_of_unknown_variables
from trivet.errors import (
    IdempotencyConflict,
    InvalidRequest,
    LedgerUnavailable,
    MissingDependency,
    ModelInvalid,
    ModelUnavailable,
    StoreForbidden,
    StoreUnconditional,
    TransientError,
    TrivetError,
    UnknownCollection,
    UnknownEndpoint,
    UnknownHook,
    UnknownKey,
    UnknownTask,
)

OK, FAILED, INVALID, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130

_INVALID = (
    InvalidRequest,
    UnknownCollection,
    UnknownTask,
    UnknownEndpoint,
    UnknownKey,
    UnknownHook,
    IdempotencyConflict,
)
_UNAVAILABLE = (
    TransientError,
    MissingDependency,
    ModelUnavailable,
    ModelInvalid,
    StoreForbidden,
    StoreUnconditional,
)

#: What every wrong argument is; typer gives it no public name.
_UsageError = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="trivet",
    help="Source URLs in, dense, sparse and ColBERT embeddings out, on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from trivet import __version__

        typer.echo(f"trivet {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    namespace: str = typer.Option("", "--namespace", "-n", help="Namespace; else TRIVET_NAMESPACE, else default."),
    redis_url: str = typer.Option("", "--redis-url", help="Redis; else TRIVET_REDIS_URL, else what `trivet up` runs."),
    state_dir: str = typer.Option("", "--state-dir", help="State folder; else TRIVET_STATE_DIR, else .trivet."),
    _: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    warn_of_unknown_variables()
    ctx.obj = Common(namespace, redis_url, state_dir)


for _group in (
    system,
    collection,
    ingest,
    tasks,
    verbs,
    deletes,
    events,
    endpoints,
    hooks,
    keys,
    search,
    index,
    evaluation,
    models,
    tune,
    repair,
    doctor,
    audit,
):
    _group.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; no error leaves as a stack trace."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if "--json" in words:
            # Only so is a wrong argument ours to report.
            code = app(args=words, prog_name="trivet", standalone_mode=False)
            return code if isinstance(code, int) else OK
        app(args=words, prog_name="trivet")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else OK if end.code is None else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; what Python flushes at exit must have somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 - the last line: a user gets a sentence, never a stack trace
        return _report(error, as_json="--json" in words)
    return OK


def _report(error: Exception, *, as_json: bool) -> int:
    from trivet.cli.console import print_error
    from trivet.cli.debug import wanted
    from trivet.cli.packages import missing_dependency

    if wanted():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ImportError):
        error = missing_dependency(error) or error
    if isinstance(error, _UsageError):
        return _report_usage(error, as_json=as_json)
    if isinstance(error, TrivetError):
        # A library cannot know that there is a command for this.
        more = start_hint() if isinstance(error, LedgerUnavailable) else ""
        print_error(error.code, error.message, f"{error.hint} {more}".strip(), as_json=as_json)
        return INVALID if isinstance(error, _INVALID) else UNAVAILABLE if isinstance(error, _UNAVAILABLE) else FAILED
    if isinstance(error, TimeoutError):
        print_error("timeout", str(error), "It runs on; look again with: trivet tasks", as_json=as_json)
        return FAILED
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    print_error(
        "internal", f"Trivet met an error of its own: {what}", "TRIVET_LOG_LEVEL=DEBUG shows where.", as_json=as_json
    )
    return FAILED


def _report_usage(error: Any, *, as_json: bool) -> int:
    from trivet.cli.console import print_error

    # A group without a command gives its whole help as an error.
    no_command = type(error).__name__ == "NoArgsIsHelpError"
    message = "Missing command" if no_command else " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx else "trivet"
    print_error(InvalidRequest.code, f"{message}.", f"See: {command} --help", as_json=as_json)
    return INVALID
