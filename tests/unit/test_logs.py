"""Logs: one form for our own records and other libraries', and nothing secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from trivet import logs
from trivet.errors import InvalidRequest
from trivet.settings import Settings


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in logs._CHATTY}
    monkeypatch.setattr(logs, "_process_values", {})
    yield
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def lines(as_json: bool = True, **fields: Any) -> io.StringIO:
    out = io.StringIO()
    logs.configure(Settings(log_json=as_json, **fields), stream=out)
    return out


def records(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_time_level_and_logger() -> None:
    out = lines()
    structlog.get_logger("trivet.stages").info("shard leased", task_id="task_1", tokens=512)
    (record,) = records(out)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "shard leased", "level": "info", "logger": "trivet.stages", "task_id": "task_1", "tokens": 512,
    }  # fmt: skip


def test_records_of_other_libraries_take_the_same_form_and_the_same_redaction() -> None:
    out = lines()
    logging.getLogger("celery.worker").warning("lost %s", "redis://:hunter2@cache:6379/0", extra={"attempt": 3})
    (record,) = records(out)
    assert record["event"] == "lost redis://cache:6379/0"
    assert (record["level"], record["logger"], record["attempt"]) == ("warning", "celery.worker", 3)


def test_warnings_become_records() -> None:
    out = lines()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    assert "old thing" in records(out)[0]["event"]


def test_console_lines_are_for_people_and_as_clean() -> None:
    out = lines(as_json=False)
    structlog.get_logger("trivet").info("fetched", url="https://u:hunter2@host/p?sig=hunter2")
    text = out.getvalue()
    assert "fetched" in text
    assert "https://host/p?…" in text
    assert "hunter2" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_are_redacted_too(as_json: bool) -> None:
    out = lines(as_json=as_json)
    try:
        raise ValueError("cannot reach https://user:hunter2@host/path?token=hunter2")
    except ValueError:
        structlog.get_logger("trivet").exception("failed")
        logging.getLogger("boto3").exception("failed")
    text = out.getvalue()
    assert text.count("Traceback") == 2
    assert text.count("ValueError: cannot reach https://host/path?") == 2
    assert "hunter2" not in text


def test_bound_values_stand_on_every_line_of_the_block_and_of_nothing_else() -> None:
    out = lines()
    log = structlog.get_logger("trivet")
    logs.bind_process(worker="embed-1")
    with logs.bind(task_id="task_1", stage="embed", lane=None):
        log.info("one")
        logging.getLogger("boto3").warning("two")
        with logs.bind(task_id="task_2"):
            log.info("three")
    log.info("four")
    thread = threading.Thread(target=lambda: log.info("five"))
    thread.start()
    thread.join()
    got = [(r.get("task_id"), r.get("stage"), r["worker"], "lane" in r) for r in records(out)]
    assert got == [
        ("task_1", "embed", "embed-1", False),
        ("task_1", "embed", "embed-1", False),
        ("task_2", "embed", "embed-1", False),
        (None, None, "embed-1", False),
        (None, None, "embed-1", False),
    ]


def test_the_level_holds_and_libraries_never_go_below_info() -> None:
    out = lines(log_level="warning")
    structlog.get_logger("trivet").info("quiet")
    structlog.get_logger("trivet").warning("loud")
    assert [r["event"] for r in records(out)] == ["loud"]
    out = lines(log_level="DEBUG")
    logging.getLogger("botocore.auth").debug("StringToSign")
    structlog.get_logger("trivet").debug("detail")
    assert [r["event"] for r in records(out)] == ["detail"]


def test_a_second_configuration_takes_the_place_of_the_first() -> None:
    first, second = lines(), lines()
    logging.getLogger("x").warning("once")
    assert first.getvalue() == ""
    assert len(records(second)) == 1


def test_a_level_that_does_not_exist_is_named() -> None:
    with pytest.raises(InvalidRequest, match="TRIVET_LOG_LEVEL is 'LOUD'"):
        logs.configure(Settings(log_level="LOUD"))


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("password", "x", True), ("s3_secret_key", "x", True), ("secretKey", "x", True), ("api_key", "x", True),
        ("X-Api-Key", "x", True), ("Authorization", "x", True), ("access_token", "x", True), ("token", "x", True),
        ("key", "x", True), ("AWS_SECRET_ACCESS_KEY", "x", True), ("Set-Cookie", "x", True), ("password", 12345, True),
        ("credentials", {"a": "b"}, True),
        ("token_count", 5, False), ("tokens", 5, False), ("token", 5, False), ("claim_tokens", 5, False),
        ("tokenizer", "x", False), ("encoder_key", "x", False), ("manifest_key", "x", False), ("s3_key", "x", False),
        ("monkey", "x", False), ("keyboard", "x", False), ("event", "x", False), ("password", "", False),
        ("authorization", None, False), ("", "x", False),
    ],
)  # fmt: skip
def test_a_name_tells_what_is_secret(name: str, value: object, hidden: bool) -> None:
    out = lines()
    structlog.get_logger("t").info("e", deep=[{"deeper": {name: value}}])
    assert records(out)[0]["deep"][0]["deeper"][name] == (logs.HIDDEN if hidden else value)


@pytest.mark.parametrize(
    "text",
    [
        "GET https://host/p?X-Amz-Signature=hunter2 HTTP/1.1",
        "(see https://user:hunter2@host/p).",
        "redis://:hunter2@cache:6379/0 and redis://:other@cache/1",
        "redis://:pass/hunter2@cache:6379/0",
        "HTTPS://HOST/?q=hunter2",
        "amqp://guest:hunter2@mq//",
        "data:text/plain,hunter2",
        "DATA:text/plain;base64,hunter2",
        "{'url': 'https://host/?t=hunter2', 'n': 1}",
        '{"Authorization": "Bearer hunter2hunter2"}',
        "Authorization: Basic hunter2",
        "Authorization: AWS4-HMAC-SHA256 Credential=hunter2/20261123, SignedHeaders=host, Signature=hunter2",
        "sent Bearer hunter2.hunter2 to it",
        "password=hunter2&user=a",
        "TRIVET_S3_SECRET_KEY=hunter2",
        '"api_key": "hunter2"',
        "aws_secret_access_key = hunter2",
        "token: hunter2",
    ],
)
def test_a_secret_in_running_text_is_hidden(text: str) -> None:
    assert "hunter2" not in logs.redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "42 chunks, 16,384 tokens in 3.2 s",
        "s3://bucket/v1/default/docs/objects/obj_1/g/1/manifest.json",
        "https://host/a/@user/post.html",
        "basic science is a key idea; tokens are not",
        "shard 3 of task_1: embed → commit",
        "日本語 العربية",
        "two\nlines\tand a tab",
    ],
)
def test_what_is_not_secret_stays_as_it_is(text: str) -> None:
    assert logs.redact_text(text) == text


def test_values_of_any_type_can_be_logged_and_control_codes_cannot_reach_a_terminal() -> None:
    out = lines()
    structlog.get_logger("t").info(
        "\x1b[2Jhello\r",
        path=Path("/a"),
        secret=SecretStr("hunter2"),
        shown=SecretStr("hunter2"),
        error=ValueError("https://h/?q=hunter2"),
        raw=b"x",
        many={1, 2},
        nothing=None,
        yes=True,
    )
    (record,) = records(out)
    assert "hunter2" not in out.getvalue()
    assert record["event"] == "\\x1b[2Jhello\\x0d"
    assert record["path"] == "/a"
    assert record["error"] == "https://h/?…"
    assert record["many"] == [1, 2]
    assert record["yes"] is True
    assert record["nothing"] is None


def test_a_value_as_long_as_a_document_is_cut() -> None:
    assert len(logs.redact_text("a-" * 1_000_000)) < logs.LONGEST + 100


@given(st.text(max_size=300))
def test_redaction_takes_any_text_and_has_nothing_to_add_to_its_own_result(text: str) -> None:
    once = logs.redact_text(text)
    assert logs.redact_text(once) == once


@given(
    st.from_regex(r"[a-z]{2,8}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9%:_~.-]{1,20}", fullmatch=True),
    st.from_regex(r"(/[a-z0-9@:._-]{0,8}){0,3}", fullmatch=True),
)
def test_no_user_info_or_query_of_a_url_survives(scheme: str, secret: str, path: str) -> None:
    marked = f"SECRET{secret}"
    text = logs.redact_text(f"see {scheme}://user:{marked}@host{path}?q={marked}, it says")
    assert "SECRET" not in text
    assert "host" in text or "unreadable" in text
