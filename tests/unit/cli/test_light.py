"""The command line starts fast: what is heavy is loaded by the command that needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("torch", "transformers", "pyarrow", "numpy", "celery", "redis", "boto3", "duckdb")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["search", "--help"],
        ["eval", "--help"],
        ["endpoints", "--help"],
        ["rebuild", "--help"],
        ["--version"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str], clean_env: dict[str, str]) -> None:
    script = (
        "import sys; from trivet.cli import main; status = main(sys.argv[1:]);"
        f" print([name for name in {_HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=clean_env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


def test_the_commands_that_only_ask_redis_load_no_model_library(clean_env: dict[str, str]) -> None:
    script = (
        "import sys; from trivet.cli import main; main(['tasks']);"
        " sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pyarrow', 'numpy')))"
    )
    environment = clean_env | {"TRIVET_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0
