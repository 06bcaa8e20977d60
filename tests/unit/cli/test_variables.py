"""A setting that is misspelt is told, since it would silently be the default."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli import OK, main
from trivet.cli.common import Common
from trivet.settings import Settings, unknown_variables


@given(st.sampled_from(sorted(Settings.model_fields)), st.booleans())
def test_a_setting_is_known_however_it_is_written(name: str, capitals: bool) -> None:
    variable = f"trivet_{name}"
    assert unknown_variables({variable.upper() if capitals else variable: "1", "PATH": "/", "TRIVETTED": "1"}) == {}


def test_an_unknown_variable_comes_with_the_nearest_setting() -> None:
    assert unknown_variables({"TRIVET_LEASE_SECOND": "1", "TRIVET_QQQQQQQQQQQQQQQQ": "1"}) == {
        "TRIVET_LEASE_SECOND": "TRIVET_LEASE_SECONDS",
        "TRIVET_QQQQQQQQQQQQQQQQ": "",
    }


def test_the_command_line_warns_once_on_stderr_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def tasks(self, *_: object) -> list[object]:
            return []

    monkeypatch.setattr(Common, "client", lambda _: Client())
    monkeypatch.setenv("TRIVET_LEASE_SECOND", "1")
    assert main(["tasks", "--json"]) == OK
    out, err = capsys.readouterr()
    assert json.loads(out) == []
    assert len(err.splitlines()) == 1
    assert "TRIVET_LEASE_SECOND " in err
    assert "TRIVET_LEASE_SECONDS" in err
