"""The way of a delivery: what is forged, late, old or broken off, for each scheme."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import trivet.hooks
from tests.support.hooking import OPTIONS, Desk
from trivet.errors import (
    HookBusy,
    HookRefused,
    InvalidRequest,
    LedgerUnavailable,
    TooManyRequests,
    TrivetError,
    UnknownHook,
)
from trivet.hooks import SCHEMES, Hook, Incoming, open_scheme

TIMED = ("standard", "sns")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture(params=sorted(SCHEMES))
def hook(request: pytest.FixtureRequest, desk: Desk) -> Hook:
    return desk.add(request.param)


def refused(desk: Desk, hook: Hook, incoming: Incoming) -> None:
    with pytest.raises((HookRefused, InvalidRequest)):
        desk.receive(hook, incoming)
    assert desk.producer.calls == []


def test_every_scheme_has_options_here() -> None:
    assert set(OPTIONS) == set(SCHEMES)


def test_a_signed_delivery_becomes_tasks_and_is_known_again(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    first = desk.receive(hook, incoming)
    assert first.status == "done"
    assert first.ingested >= 1
    done = list(desk.producer.calls)
    again = desk.receive(hook, incoming)
    assert again == first.model_copy(update={"status": "duplicate"})
    assert desk.producer.calls == done


def test_a_changed_body_is_refused_unless_a_token_is_all_there_is(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    changed = dataclasses.replace(incoming, body=incoming.body.replace(b"handbook", b"handbags"))
    if b"handbook" not in incoming.body:
        changed = dataclasses.replace(incoming, body=incoming.body + b" ")
    if hook.scheme in ("s3", "eventbridge"):
        assert desk.receive(hook, changed).ingested
    else:
        refused(desk, hook, changed)


def test_without_any_header_nothing_is_taken(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    if hook.scheme != "sns":
        refused(desk, hook, Incoming({}, incoming.body))


def test_a_header_that_is_wrong_empty_or_there_twice_is_refused(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    for name in incoming.headers:
        if name.startswith("x-github-") and name != "x-hub-signature-256":
            continue
        others = [(each, value) for each, value in incoming.headers.items() if each != name]
        value = incoming.headers[name]
        for pairs in ([], [(name, "")], [(name, value + "x")], [(name, value), (name, value)], [(name, "é" * 40)]):
            refused(desk, hook, Incoming.of([*others, *pairs], incoming.body))


def test_another_hooks_secret_is_refused(desk: Desk, hook: Hook) -> None:
    other = desk.add(hook.scheme)
    if hook.scheme != "sns":
        refused(desk, hook, desk.signed(other))


def test_a_removed_hook_takes_nothing(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    desk.hooks.remove(hook.hook_id)
    with pytest.raises(UnknownHook):
        desk.receive(hook, incoming)


def test_an_old_or_future_delivery_is_refused_where_its_time_is_signed(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    for seconds in (-7200.0, 2 * 7200.0):
        desk.clock.advance(seconds)
        if hook.scheme == "sns" and seconds > 0:
            # SNS' certificate of the test is valid for an hour.
            refused(desk, hook, incoming)
        elif hook.scheme in TIMED:
            refused(desk, hook, incoming)
    if hook.scheme not in TIMED:
        assert desk.receive(hook, incoming).ingested


def test_a_delivery_is_known_again_for_longer_than_it_could_be_replayed(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    desk.receive(hook, incoming)
    done = list(desk.producer.calls)
    for _ in range(6):
        desk.clock.advance(86_400)
        if hook.scheme in TIMED:
            with pytest.raises(HookRefused):
                desk.receive(hook, incoming)
        else:
            assert desk.receive(hook, incoming).status == "duplicate"
    assert desk.producer.calls == done


def test_a_rotated_secret_verifies_along_for_the_overlap(desk: Desk, hook: Hook) -> None:
    if hook.scheme == "sns":
        with pytest.raises(InvalidRequest):
            desk.hooks.rotate(hook.hook_id)
        return
    old = desk.signed(hook)
    new = desk.hooks.rotate(hook.hook_id, overlap_seconds=60)
    assert desk.receive(hook, old).ingested
    assert desk.receive(new, desk.signed(new)).status in ("done", "duplicate")
    desk.clock.advance(61)
    with pytest.raises(HookRefused):
        desk.receive(hook, desk.signed(hook))


def test_hmac_compare_digest_is_what_decides(desk: Desk, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    if hook.scheme == "sns":
        return
    incoming = desk.signed(hook)
    monkeypatch.setattr("trivet.hooks.signatures.hmac.compare_digest", lambda a, b: False)
    refused(desk, hook, incoming)
    monkeypatch.setattr("trivet.hooks.signatures.hmac.compare_digest", lambda a, b: True)
    wrong = {
        name: value[:-1] if "signature" in name or "key" in name else value for name, value in incoming.headers.items()
    }
    if "authorization" in wrong:
        wrong["authorization"] = "Bearer x"
    assert desk.receive(hook, Incoming(wrong, incoming.body)).ingested


def test_no_scheme_compares_a_secret_by_itself() -> None:
    """Every signature and token goes through `signatures.same`: no scheme has an == beside what is public."""
    for name in SCHEMES:
        scheme = open_scheme(name, Desk().getter)
        tree = ast.parse(inspect.getsource(inspect.getmodule(type(scheme))))  # type: ignore[arg-type] # a class has a module
        verify = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "verify")
        compared = [ast.unparse(n) for n in ast.walk(verify) if isinstance(n, ast.Compare)]
        assert not any(word in text.lower() for text in compared for word in ("secret", "signature(", "right", "given"))
    folder = Path(trivet.hooks.__file__).parent
    users = [path.name for path in folder.glob("*.py") if "compare_digest" in path.read_text()]
    assert users == ["signatures.py"]


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"3", b"null", b'"x"', b"\xff\xfe", b"{" * 5000, b'{"a":' * 500]
)
def test_a_body_that_is_no_object_is_refused_in_one_sentence(desk: Desk, hook: Hook, body: bytes) -> None:
    incoming = Incoming({}, body) if hook.scheme == "sns" or not body else desk.signed(hook, body)
    with pytest.raises(TrivetError) as caught:
        desk.receive(hook, incoming)
    assert isinstance(caught.value, (HookRefused, InvalidRequest))
    assert "Traceback" not in str(caught.value)


def test_a_ledger_that_is_away_in_the_middle_loses_and_doubles_nothing(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    desk.producer.errors = [None, LedgerUnavailable("away")]
    actions = len(desk.hooks.test(hook.hook_id).actions)
    if actions > 1:
        with pytest.raises(LedgerUnavailable):
            desk.receive(hook, incoming)
    else:
        desk.producer.errors = [LedgerUnavailable("away")]
        with pytest.raises(LedgerUnavailable):
            desk.receive(hook, incoming)
    assert desk.receive(hook, incoming).status == "done"
    assert len(desk.producer.calls) == len({call.key for call in desk.producer.calls}) == actions


def test_one_source_that_is_refused_keeps_none_of_the_others_back(desk: Desk) -> None:
    hook = desk.add("hmac", mapping={"items": "$.files[*]"})
    urls = ["https://h/a", "file:///etc/passwd", "FILE:/etc/passwd", " upload:x/y", "gopher://h/x", "", "https://h/b"]
    found = desk.receive(hook, desk.signed(hook, {"files": [{"url": url} for url in urls]}))
    assert next(call.url for call in desk.producer.calls if call.what == "ingest") == "https://h/a"
    assert "https://h/b" in [call.url for call in desk.producer.calls]
    assert not any(call.url.lower().strip().startswith(("file:", "upload:")) for call in desk.producer.calls)
    assert found.ingested + found.refused + len(found.ignored) == len(urls)


def test_two_requests_with_one_delivery_do_its_work_once(desk: Desk, hook: Hook) -> None:
    incoming = desk.signed(hook)
    scheme = desk.receiver._scheme(hook.scheme)
    from trivet.ids import digest

    delivery = digest(scheme.verify(hook, incoming, desk.clock.now()).delivery, 32)
    desk.book.begin(hook.hook_id, delivery, "another", 60)
    with pytest.raises(HookBusy):
        desk.receive(hook, incoming)
    assert desk.producer.calls == []


def test_a_hook_takes_so_many_deliveries_per_minute() -> None:
    desk = Desk(hook_rate_per_minute=2)
    hook = desk.add("hmac")
    for number in range(2):
        desk.receive(hook, desk.signed(hook, {"url": f"https://h/{number}"}))
    with pytest.raises(TooManyRequests) as caught:
        desk.receive(hook, desk.signed(hook, {"url": "https://h/2"}))
    assert 0 < caught.value.retry_after <= 60
    # What is forged is refused before it is counted.
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming({}, b"{}"))


def test_a_hook_ingests_so_many_sources_a_day_whole_deliveries_only() -> None:
    desk = Desk(sources_per_day=3)
    hook = desk.add("hmac", mapping={"items": "$.files[*]"})
    two = {"files": [{"url": "https://h/a"}, {"url": "https://h/b"}]}
    assert desk.receive(hook, desk.signed(hook, two)).ingested == 2
    with pytest.raises(TooManyRequests):
        desk.receive(hook, desk.signed(hook, {**two, "again": 1}))
    assert len(desk.producer.calls) == 2
    desk.clock.advance(86_400)
    assert desk.receive(hook, desk.signed(hook, {**two, "again": 1})).ingested == 2


def test_a_delivery_names_so_many_sources_and_no_more() -> None:
    desk = Desk(hook_most_actions=3)
    hook = desk.add("hmac", mapping={"items": "$.files[*]"})
    with pytest.raises(InvalidRequest):
        desk.receive(hook, desk.signed(hook, {"files": [{"url": f"https://h/{n}"} for n in range(4)]}))
    assert desk.producer.calls == []


def test_a_test_does_nothing(desk: Desk, hook: Hook) -> None:
    reading = desk.hooks.test(hook.hook_id)
    assert reading.actions
    assert desk.producer.calls == []
    assert desk.getter.got == []
    assert desk.hooks.get(hook.hook_id).last_at is None
