"""`trivet keys`, `hooks` and `audit-log` on a real Valkey."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trivet.cli import INVALID, OK, main
from trivet.client import Trivet
from trivet.keys.service import Keys
from trivet.settings import Settings
from trivet.supervisor.workers import environment

Run = Callable[..., Any]


@pytest.fixture
def cli(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with --json; gives its result, or (status, what was said) where it failed."""

    def run(*arguments: str, stdin: str = "", plain: bool = False) -> Any:
        for name, value in environment(settings, {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        status = main([*arguments, *([] if plain else ["--json"])])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        if plain:
            return status, out, err
        return json.loads(out) if status == OK else (status, err)

    return run


def test_a_key_is_made_used_rotated_listed_and_revoked(cli: Run, settings: Settings) -> None:
    made = cli(
        "keys", "create", "--name", "app", "--scope", "read", "--expires-days", "2", "--requests-per-minute", "7"
    )
    assert (made["scopes"], made["limits"]["requests_per_minute"], made["state"]) == (["read"], 7, "active")
    keys = Keys(settings)
    assert keys.authenticate(made["api_key"]).name == "app"
    rotated = cli("keys", "rotate", made["key_id"], "--overlap-hours", "0")
    assert keys.authenticate(rotated["api_key"]).key_id == made["key_id"]
    (listed,) = cli("keys", "list")
    assert listed["key_id"] == made["key_id"]
    assert "api_key" not in listed
    assert cli("keys", "revoke", made["key_id"]) == {"revoked": made["key_id"], "was_active": True}
    assert cli("keys", "list")[0]["state"] == "revoked"
    log = cli("audit-log")
    assert [(each["who"], each["action"], each["target"]) for each in log] == [
        ("cli", "keys revoke", made["key_id"]),
        ("cli", "keys rotate", made["key_id"]),
        ("cli", "keys create", made["key_id"]),
    ]
    keys.close()


def test_for_the_reader_the_key_alone_is_on_stdout(cli: Run) -> None:
    status, out, err = cli("keys", "create", plain=True)
    assert status == OK
    assert out.strip().startswith("sk_")
    assert len(out.split()) == 1
    assert out.strip().rpartition("_")[2] not in err
    for command in (("keys", "list"), ("audit-log",)):
        status, shown, _ = cli(*command, plain=True)
        assert status == OK
        assert out.strip()[:19] in shown
        assert out.strip() not in shown


def test_what_cannot_be_is_refused_in_one_sentence(cli: Run) -> None:
    for arguments, said in (
        (("keys", "create", "--scope", "root"), "No scope"),
        (("keys", "create", "--expires-days", "-1"), "cannot expire"),
        (("keys", "revoke", "sk_0123456789abcdef"), "No API key is called"),
        (("keys", "rotate", "nonsense"), "No API key is called"),
        (("hooks", "create", "github", "-c", "nowhere"), "nowhere"),
        (("hooks", "delete", "hook_1"), "No hook is called"),
        (("hooks", "test", "hook_1"), "No hook is called"),
    ):
        status, err = cli(*arguments)
        assert status == INVALID, (arguments, err)
        assert said in err


def test_a_hook_is_created_tested_rotated_and_deleted(cli: Run, settings: Settings, tmp_path: Path) -> None:
    Trivet(settings=settings).create_collection("docs")
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"mapping": {"items": "$.files[*]"}}))
    made = cli(
        "hooks", "create", "hmac", "-c", "docs", "--options", f"@{options}", "--secret-stdin", stdin="a" * 20 + "\n"
    )
    assert (made["secret"], made["options"]["mapping"]["items"]) == ("a" * 20, "$.files[*]")
    payload = tmp_path / "payload.json"
    payload.write_text(json.dumps({"files": [{"url": "https://example.com/a.pdf?token=hidden"}, {}]}))
    tested = cli("hooks", "test", made["hook_id"], "--payload", str(payload))
    assert [(each["action"], each["url"]) for each in tested["actions"]] == [("ingest", "https://example.com/a.pdf?…")]
    assert len(tested["ignored"]) == 1
    assert Trivet(settings=settings).tasks() == []
    assert len(cli("hooks", "rotate", made["hook_id"])["secret"]) == 64
    (listed,) = cli("hooks", "list")
    assert "secret" not in listed
    assert cli("hooks", "delete", made["hook_id"]) == {"deleted": made["hook_id"]}
    assert cli("hooks", "list") == []
    assert [each["action"] for each in cli("audit-log")] == ["hooks delete", "hooks rotate", "hooks create"]


@pytest.mark.parametrize("scheme", ["standard", "github", "s3", "sns", "eventbridge", "hmac"])
def test_a_hook_of_every_scheme_says_what_it_would_do(cli: Run, settings: Settings, scheme: str) -> None:
    from tests.support.hooking import OPTIONS

    Trivet(settings=settings).create_collection("docs")
    made = cli("hooks", "create", scheme, "-c", "docs", "--options", json.dumps(OPTIONS[scheme]))
    status, out, err = cli("hooks", "test", made["hook_id"], plain=True)
    assert status == OK
    assert "is verified" in err
    assert "ingest" in out


@pytest.mark.parametrize("options", ["nonsense", "[]", "@/nowhere", '{"paths": 3}'])
def test_options_that_are_none_are_refused(cli: Run, settings: Settings, options: str) -> None:
    Trivet(settings=settings).create_collection("docs", exist_ok=True)
    status, err = cli("hooks", "create", "github", "-c", "docs", "--options", options)
    assert status == INVALID
    assert len(err.strip().splitlines()) == 1
