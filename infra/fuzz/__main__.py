"""`python -m infra.fuzz [--cases 5000] [--seed N]`: requests made up from the OpenAPI document, to a started Trivet.

Schemathesis sends what the document allows and what it forbids, with a key, without one and with a wrong one, alone and
in sequences, until at least so many requests were answered. Exit status 1 where an answer is a server's error or is not
as the document says. Workers run meanwhile, with the encoder's fake twin: what is found must not depend on what a model
computes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from infra.environments import python_with
from infra.fuzz.seeds import NOBODY, sow, write_config
from infra.serving import admin_key, api_of
from trivet.cli.console import say
from trivet.errors import StartFailed
from trivet.settings import Settings
from trivet.supervisor import running

_PACKAGE = "schemathesis==4.32.5"
#: What is sent to each operation by each phase; a whole run with this many is a little over 5,000 requests.
_PER_OPERATION = 30
#: What the document cannot say: whether a made-up id exists; and that a task can be read after DELETE has ended it.
_UNANSWERABLE = ("positive_data_acceptance", "use_after_free")
#: More than is sent: a refusal for too many requests would be right, and would hide what comes behind it.
_PLENTY = 1_000_000


def main() -> int:
    """Exit status 0 where every answer held and there were enough of them."""
    parser = argparse.ArgumentParser(prog="infra.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="requests at least")
    parser.add_argument("--seed", type=int, help="that of an earlier run, to see it again")
    options = parser.parse_args()
    given = Settings.load()
    folder = given.state_dir.absolute() / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "state", ignore_errors=True)
    program = python_with(folder / "venv", (_PACKAGE,)).with_name("schemathesis")
    settings = Settings.load(
        state_dir=folder / "state",
        model_dir=given.models_folder.absolute(),
        model_aliases={"BAAI/bge-m3": "fake"},
        allow_addresses=(NOBODY,),
        api_keys="always",
        rate_per_minute=_PLENTY,
        rate_burst=_PLENTY,
        unauthenticated_per_minute=_PLENTY,
    )
    with running(settings, progress=say) as here, api_of(here) as base:
        key = admin_key(here)
        write_config(folder / "schemathesis.toml", sow(base, key))
        failed = sent = 0
        while sent < options.cases and not failed:
            failed, more = _run(program, base, key, folder, options.seed)
            if not more:
                raise StartFailed("Schemathesis sent nothing.", hint=f"Its words are in {folder / 'report.json'}.")
            sent += more
            _check_key(base, key)
    say(f"{sent:,} requests were answered; {failed} answers were not as the document says.")
    return 1 if failed else 0


def _check_key(base: str, key: str) -> None:
    """Raises `HTTPError` where the key was good for nothing in the end."""
    asked = urllib.request.Request(f"{base}/v1/namespaces", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        answer.read()


def _run(program: Path, base: str, key: str, folder: Path, seed: int | None) -> tuple[int, int]:
    """Failed answers and requests of one run; what failed is printed, with a curl command for each."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command: list[str | Path] = [program, "--config-file", folder / "schemathesis.toml", "run"]
    command += [f"{base}/openapi.json", "--no-color", "--continue-on-failure", "--request-timeout", "60"]
    command += ["--header", f"Authorization: Bearer {key}"]
    command += ["--checks", "all", "--exclude-checks", ",".join(_UNANSWERABLE)]
    command += ["--max-examples", str(_PER_OPERATION), "--report", "json", "--report-json-path", report]
    command += ["--seed", str(seed)] if seed is not None else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    found: dict[str, Any] = json.loads(report.read_text("utf-8")) if report.is_file() else {}
    if not found.get("complete"):
        raise StartFailed(f"Schemathesis ended early, with exit status {done.returncode}.", hint="Its words are above.")
    return max(found["test_cases"]["unique_failures"], int(done.returncode != 0)), found["test_cases"]["generated"]


if __name__ == "__main__":
    sys.exit(main())
