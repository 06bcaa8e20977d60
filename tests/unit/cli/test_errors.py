"""Every error is one sentence on stderr and an exit status; no stack trace ever leaves."""

from __future__ import annotations

import json

import pytest

from trivet import errors
from trivet.cli import FAILED, INTERRUPTED, INVALID, UNAVAILABLE, main
from trivet.cli.common import Common
from trivet.settings import Settings


def _raise(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def client(self: Common) -> None:
        raise error

    monkeypatch.setattr(Common, "client", client)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidRequest("It is wrong.", hint="Do it."), INVALID),
        (errors.UnknownCollection("It is wrong.", hint="Do it."), INVALID),
        (errors.UnknownTask("It is wrong.", hint="Do it."), INVALID),
        (errors.IdempotencyConflict("It is wrong.", hint="Do it."), INVALID),
        (errors.LedgerUnavailable("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.StoreUnavailable("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.StoreForbidden("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.StoreUnconditional("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.ModelUnavailable("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.ModelInvalid("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.MissingDependency("It is wrong.", hint="Do it."), UNAVAILABLE),
        (errors.TooLate("It is wrong.", hint="Do it."), FAILED),
        (errors.StartFailed("It is wrong.", hint="Do it."), FAILED),
        (TimeoutError("It is wrong."), FAILED),
        (ZeroDivisionError("It is wrong."), FAILED),
    ],
)
def test_an_error_is_one_sentence_and_an_exit_status(
    error: Exception, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(error, monkeypatch)
    assert main(["tasks"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert "It is wrong." in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_with_json_an_error_is_an_object_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _raise(errors.UnknownCollection("No such collection.", hint="Create it."), monkeypatch)
    assert main(["tasks", "--json"]) == INVALID
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": {"code": "unknown_collection", "message": "No such collection.", "hint": "Create it."}
    }
    assert "No such collection." in err


def test_every_error_of_ours_has_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [errors.TrivetError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
        _raise(kind("It is wrong."), monkeypatch)
        assert main(["tasks"]) in (FAILED, INVALID, UNAVAILABLE)


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _raise(KeyboardInterrupt(), monkeypatch)
    assert main(["tasks"]) == INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_debug_asks_for_the_stack_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRIVET_LOG_LEVEL", "DEBUG")
    _raise(errors.LedgerUnavailable("It is wrong."), monkeypatch)
    assert main(["tasks"]) == UNAVAILABLE
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "value"),
    [("TRIVET_FORWARD_TOKENS", "many"), ("TRIVET_MODEL_ALIASES", "{"), ("TRIVET_NAMESPACE", "a/b")],
)
def test_a_setting_that_does_not_fit_is_named(
    setting: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(setting, value)
    assert main(["tasks"]) == INVALID
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert setting.removeprefix("TRIVET_").lower() in err.lower()


@pytest.mark.parametrize(
    ("setting", "shown"),
    [("TRIVET_ALLOW_ADDRESSES", '["one", "another"]'), ("TRIVET_MODEL_ALIASES", '{"name": "value"}')],
)
def test_a_list_or_table_that_is_no_json_is_shown_as_it_is_written(
    setting: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, "10.1.2.3:8080")
    with pytest.raises(errors.InvalidRequest, match=setting) as caught:
        Settings.load()
    assert shown in caught.value.message


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["search", "only-the-collection"],
        ["ingest", "https://example.com/"],
        ["tasks", "--state", "no-such-state"],
        ["ingest", "no-such-file", "--collection", "docs"],
        ["ingest", "https://a/1", "https://a/2", "--collection", "docs", "--object-id", "one"],
        ["ingest", "https://example.com/", "--collection", "docs", "--metadata", "no-equals-sign"],
        ["ingest", "https://example.com/", "--collection", "docs", "--lane", "fast"],
        ["collections", "create", "docs", "--dtype", "int3"],
        ["collections", "create", "docs", "--colbert", "int4"],
        ["collections", "create", "docs", "--colbert", "off", "--colbert-pooling", "2"],
        ["collections", "create", "docs", "--colbert-pooling", "17"],
        ["collections", "create", "docs", "--dense-dimensions", "0"],
        ["search", "docs", "question", "--top-k", "0"],
        ["search", "docs", "question", "--fusion", "rrf", "--weights", "dense=much"],
        ["search", "docs", "question", "--weights", "dense=0,sparse=0,colbert=1"],
        ["search", "docs", "question", "--without", "dense", "--without", "sparse"],
        ["search", "docs", "question", "--min-score", "0.5"],
        ["search", "docs", "question", "--min-leg", "colbert=0.5", "--no-rerank"],
        ["search", "docs", "question", "--offset", "64", "--top-k", "10"],
        ["search", "docs", "question", "--where", "year"],
        ["search", "docs", "question", "--page", "first"],
        ["search", "docs", "question", "--since", "yesterday"],
        ["search", "docs", "question", "--maxsim", "--no-rerank"],
        ["search", "docs", "question", "--vectors"],
        ["worker", "no-such-role"],
        ["retry"],
        ["retry", "task_1", "--failed"],
        ["retry", "task_1", "--all"],
        ["retry", "task_1", "task_2", "--url", "https://example.com/"],
        ["dead", "--limit", "0"],
        ["weight", "much"],
        ["delete", "--collection", "docs"],
        ["delete", "one", "--all", "--collection", "docs"],
        ["delete", "one", "two", "--key", "k", "--collection", "docs"],
        ["delete", "one", "--wait", "--timeout", "-1", "--collection", "docs"],
        ["delete", "--missing-from", "no-such-file", "--collection", "docs"],
        ["delete", "--missing-from", "no-such-file", "--yes", "--collection", "docs"],
        ["deletes", "--confirm", "held_1", "--drop", "held_2"],
        ["deletes", "--wait"],
        ["purge", "--all"],
        ["purge", "one", "--receipt", "purge_1"],
        ["purge", "one", "--all", "--collection", "docs"],
        ["endpoints", "add"],
        ["endpoints", "rotate", "end_1", "--overlap-hours", "-1"],
        ["endpoints", "log", "end_1", "--limit", "0"],
        ["endpoints", "replay", "end_1", "--since", "yesterday"],
    ],
)
def test_a_wrong_argument_ends_with_2_before_anything_is_asked(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIVET_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main(arguments) == INVALID
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip()
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["no-such-command"], ["search", "only-the-collection"], ["collections"], ["tasks", "--limit", "0"], ["--nothing"]],
)
def test_with_json_a_wrong_argument_is_an_object_on_stdout_and_one_sentence_on_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == INVALID
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["code"] == "invalid_request"
    assert "--help" in error["hint"]
    assert len(err.splitlines()) == 1
    assert error["message"] in err


def test_a_collection_that_exists_is_told_with_the_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Client:
        def create_collection(self, *_: object, **__: object) -> None:
            raise errors.InvalidRequest("It exists.", hint="Use another name, or exist_ok=True.")

    monkeypatch.setattr(Common, "client", lambda _: Client())
    assert main(["collections", "create", "docs"]) == INVALID
    err = capsys.readouterr().err
    assert "--exist-ok" in err
    assert "exist_ok" not in err


def test_ctrl_c_while_waiting_says_that_the_tasks_run_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Handle:
        task_id = "task_1"
        new = True

        def status(self) -> None:
            raise KeyboardInterrupt

    class Client:
        namespace = "default"

        def ingest(self, *_: object, **__: object) -> Handle:
            return Handle()

    monkeypatch.setattr(Common, "client", lambda _: Client())
    assert main(["ingest", "https://example.com/", "-c", "docs", "--wait"]) == INTERRUPTED
    err = capsys.readouterr().err
    assert "runs on" in err
    assert "trivet tasks --collection docs" in err
