"""Start everything, ingest real documents by URL, show what came of it, end everything."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.demo import report
from infra.demo.documents import Ready, provide
from infra.demo.server import Site, serving
from trivet.cli.console import err, print_error, say
from trivet.cli.progress import follow
from trivet.cli.system import prepare_model
from trivet.client import Trivet
from trivet.clock import Clock, SystemClock
from trivet.errors import StartFailed, TrivetError
from trivet.settings import Settings
from trivet.stores.layout import Layout
from trivet.supervisor import Phase, running, status
from trivet.values import TaskState, TaskView

COLLECTION = "demo"
#: The demo's own state folder inside the state folder: emptied at each start, so that everything is embedded anew.
_FOLDER = "demo"
_MARK = ".demo"
_ALIASES = {"BAAI/bge-m3": "embedded"}
#: Far more than the slowest machine needs; only a system that is stuck gets there.
_GIVE_UP_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of the documents, in their order."""

    views: tuple[TaskView, ...]
    seconds: float


def main() -> int:
    """Run the demo; exit status 0 if every document was committed, 130 after Ctrl-C."""
    try:
        return _run(Settings.load(), SystemClock())
    except KeyboardInterrupt:
        say("Stopped. Nothing is left running.")
        return 130
    except TrivetError as error:
        print_error(error.code, error.message, error.hint)
        return 1
    except TimeoutError as error:
        print_error("timeout", str(error), "The workers' logs are in the state folder.")
        return 1


def _run(given: Settings, clock: Clock) -> int:
    start = clock.monotonic()
    documents = provide(given.state_dir / "cache", say)
    with serving(documents) as site:
        settings = demo_settings(given, site)
        prepare_model(settings)
        with running(settings, progress=say) as here:
            client = Trivet(settings=here)
            say(f"Everything runs. {len(documents)} documents are served at http://{site.address}/")
            ingested = _ingest(client, documents, site, clock)
            failed = [view for view in ingested.views if view.state is not TaskState.COMPLETED]
            for view in failed:
                say(f"{view.object_id} is {view.state}: {view.error.message if view.error else view.reason}")
            if not failed:
                _show(client, documents, ingested)
            say("Ending everything …")
    if failed:
        return 1
    tokens = sum(view.tokens for view in ingested.views)
    report.totals(tokens, ingested.seconds, clock.monotonic() - start)
    _farewell(settings.state_dir)
    return 0


def demo_settings(given: Settings, site: Site) -> Settings:
    """Settings with a fresh state folder, whose workers may fetch from the demo's own web server and no other
    private address. Raises `StartFailed` if something runs in that folder.
    """
    folder = fresh_folder(given)
    aliases = given.model_aliases if "model_aliases" in given.model_fields_set else _ALIASES
    return Settings.load(state_dir=folder, allow_addresses=(site.address,), model_aliases=aliases)


def fresh_folder(given: Settings) -> Path:
    """The demo's empty state folder, which shares the models with the folder that it lies in."""
    folder = given.state_dir.absolute() / _FOLDER
    if folder.exists():
        if not (folder / _MARK).is_file():
            raise StartFailed(f"{folder} was not made by the demo.", hint="Move it away, or set TRIVET_STATE_DIR.")
        if status(given.model_copy(update={"state_dir": folder})).phase is not Phase.DOWN:
            raise StartFailed(
                f"Something runs in {folder}.", hint=f"End it with: make down TRIVET_STATE_DIR={_shown(folder)}"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    (folder / _MARK).touch()
    given.models_folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(given.models_folder.absolute(), target_is_directory=True)
    return folder


def _ingest(client: Trivet, documents: Sequence[Ready], site: Site, clock: Clock) -> Ingested:
    client.create_collection(COLLECTION, exist_ok=True)
    start = clock.monotonic()
    handles = [
        client.ingest(
            site.url(document.source.name),
            collection=COLLECTION,
            object_id=document.source.name,
            metadata={"title": document.source.title, "licence": document.source.licence},
        )
        for document in documents
    ]
    names = {handle.task_id: document.source.name for handle, document in zip(handles, documents, strict=True)}
    views = follow(handles, names=names, timeout=_GIVE_UP_SECONDS, console=err(), clock=clock)
    return Ingested(tuple(views), clock.monotonic() - start)


def _show(client: Trivet, documents: Sequence[Ready], ingested: Ingested) -> None:
    layout = Layout.of(client.settings, client.namespace, COLLECTION)
    report.objects(client, layout, documents, ingested.views)
    report.passports(client, layout)
    report.events(client, COLLECTION)
    report.duckdb(client, layout)
    report.queries(client, COLLECTION)


def _farewell(folder: Path) -> None:
    shown = _shown(folder)
    say("\nNothing is left running. To look around in what was just made:")
    say(f"  make up TRIVET_STATE_DIR={shown}")
    say(f'  .venv/bin/trivet --state-dir {shown} search {COLLECTION} "Who elects the project leader?" --explain')
    say(f"  make down TRIVET_STATE_DIR={shown}")


def _shown(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)
