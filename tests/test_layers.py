"""Who may import whom, and what the library loads before it is asked to work."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "pyarrow", "numpy", "duckdb", "tokenizers", "lxml", "pypdfium2", "docx", "httpx")
LIGHT_MODULES = ("trivet", "trivet.client", "trivet.cli", "trivet.supervisor", "trivet.accept", "trivet.stores")


def test_the_import_rules_hold() -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_what_a_producer_imports_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{m.partition('.')[0] for m in sys.modules}} & {set(HEAVY)}))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == []


def test_a_cpu_worker_loads_no_torch() -> None:
    code = "import sys, workers.main; print('torch' in sys.modules, 'transformers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["False", "False"]


def test_an_integration_loads_no_torch_before_it_searches() -> None:
    code = "import sys, trivet.integrations.langchain; print('torch' in sys.modules, 'transformers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("package", ["trivet", "tasks", "workers", "producers"])
def test_the_import_path_is_the_path_from_the_root(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == ROOT / package / "__init__.py"


def test_only_the_settings_read_the_environment() -> None:
    """Others may hand it on to a child process, or read what is not Trivet's: CUDA's list of the GPUs to be used."""
    passing_on = {
        "trivet/supervisor/control.py",
        "trivet/supervisor/__main__.py",
        "trivet/cli/system.py",
        "trivet/tuning/children.py",
    }
    readers = {
        str(path.relative_to(ROOT))
        for package in ("trivet", "tasks", "workers", "producers")
        for path in (ROOT / package).rglob("*.py")
        if "os.environ" in (text := path.read_text("utf-8")) or "getenv" in text
    }
    assert readers <= {"trivet/settings.py", "trivet/machine.py", *passing_on}
