"""Serve the API in this process: `python -m producers.http [--host H] [--port P]`, as `trivet serve` does."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import uvicorn

from producers.http.app import create_app
from trivet import logs
from trivet.errors import TrivetError
from trivet.settings import Settings
from trivet.supervisor.endpoints import connected_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it. Exit status 0 after SIGTERM, 2 where a setting is wrong."""
    parser = argparse.ArgumentParser(prog="producers.http", description=__doc__)
    parser.add_argument("--host", default=None)
    parser.add_argument("--port", type=int, default=None)
    options = parser.parse_args(arguments)
    try:
        settings = connected_settings(Settings.load())
        given = {"api_host": options.host, "api_port": options.port}
        settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
        logs.configure(settings)
        app = create_app(settings)
    except TrivetError as error:
        print(f"trivet: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    # Uvicorn sends itself the signal again once it is through, and an orderly end is no death by a signal.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        # A request line may hold a source's credentials.
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.stop_seconds),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
