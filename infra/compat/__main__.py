"""`python -m infra.compat [FLOW…]`: start Trivet and its API, run each flow, end everything."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from infra.compat.corpus import DOCUMENTS, QUESTIONS
from infra.environments import python_with
from infra.local_web import LocalWeb, QuietHandler
from infra.serving import api_of
from trivet.cli.console import say
from trivet.cli.system import prepare_model
from trivet.settings import Settings
from trivet.supervisor import running

#: The MCP server's own requirement on an SDK is met by the stand-in that it brings; nothing else is installed.
_PACKAGES = ("mixpeek==1.3.783", "langchain-mixpeek==0.4.3", "mixpeek-mcp==0.1.1")
FLOWS = ("sdk", "generated", "langchain_store", "mcp_tools", "page")
_HERE = Path(__file__).parent
_ALIASES = {"BAAI/bge-m3": "embedded"}
_SECONDS = 600


class _Documents(QuietHandler):
    def do_GET(self) -> None:
        name = self.path.removeprefix("/").removesuffix(".txt")
        body = DOCUMENTS.get(name, "").encode()
        self.send_response(HTTPStatus.OK if body else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    """Exit status 0 if every flow went through."""
    parser = argparse.ArgumentParser(prog="infra.compat", description=__doc__)
    parser.add_argument("flows", nargs="*", default=[], help=f"of {', '.join(FLOWS)}; all where none is named")
    chosen = parser.parse_args().flows or FLOWS
    given = Settings.load()
    folder = given.state_dir.absolute() / "compat"
    python = python_with(folder / "venv", _PACKAGES)
    with LocalWeb(_Documents) as site:
        settings = Settings.load(
            state_dir=folder / "state",
            model_dir=given.models_folder.absolute(),
            allow_addresses=(site.place,),
            model_aliases=given.model_aliases if "model_aliases" in given.model_fields_set else _ALIASES,
            # Each run has names of its own, so that one after another finds nothing of the one before.
            redis_prefix=f"compat{int(time.time())}:",
            s3_prefix=f"compat{int(time.time())}",
        )
        prepare_model(settings)
        with running(settings, progress=say) as here, api_of(here) as base:
            say(f"The API is at {base}.")
            run = partial(_run, python, base, f"http://{site.place}")
            results = {flow: run(flow) for flow in chosen}
    for flow, (steps, seconds, error) in results.items():
        say(f"{flow:16} {steps:4} steps {seconds:7.1f} s  {error or 'ok'}")
    return 1 if any(error for _, _, error in results.values()) else 0


def _run(python: Path, base: str, site: str, flow: str) -> tuple[int, float, str]:
    """Steps that held, seconds, and why it ended early, if it did."""
    began = time.monotonic()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MIXPEEK_", "PYTHON"))},
        "COMPAT_BASE": base,
        "COMPAT_SITE": site,
        "COMPAT_DOCUMENTS": json.dumps(DOCUMENTS),
        "COMPAT_QUESTIONS": json.dumps(QUESTIONS),
    }
    done = subprocess.run(
        [python, _HERE / "flows" / f"{flow}.py"],
        env=environment,
        cwd=python.parent,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    steps = [_step(line) for line in done.stdout.splitlines()]
    held = sum(1 for step in steps if step and step["ok"])
    error = "" if done.returncode == 0 else done.stderr.strip()[-2000:] or f"exit status {done.returncode}"
    return held, time.monotonic() - began, error


def _step(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        # A client prints as it likes.
        return None
    return found if isinstance(found, dict) and "ok" in found else None


if __name__ == "__main__":
    sys.exit(main())
