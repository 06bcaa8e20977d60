"""GitHub: which files of a push and a release are meant."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hooking import Desk
from trivet.errors import HookRefused, InvalidRequest
from trivet.hooks import Delete, Incoming, Ingest

SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
RAW = "https://raw.githubusercontent.com/o/r"


def push(*commits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "after": SHA,
        "repository": {"full_name": "o/r", "default_branch": "main"},
        "commits": list(commits),
        **more,
    }


def test_githubs_own_example_of_a_signature_is_verified() -> None:
    """From GitHub's page on validating deliveries: the secret, the payload, and the signature that must come out."""
    desk = Desk()
    hook = desk.hooks.add("github", collection="c", secret="It's a Secret to Everybody")
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"x-hub-signature-256": signature, "x-github-event": "ping"}
    from trivet.hooks.github import GitHubScheme

    scheme = GitHubScheme()
    assert scheme.verify(hook, Incoming(headers, b"Hello, World!"), 0.0).at is None
    with pytest.raises(HookRefused):
        scheme.verify(hook, Incoming(headers, b"Hello, World?"), 0.0)


def test_added_and_changed_files_are_ingested_at_the_commit_and_removed_ones_deleted() -> None:
    desk = Desk()
    hook = desk.add("github")
    commit = {"added": ["a.md", "docs/ü b.md"], "modified": ["c.md"], "removed": ["d.md"]}
    desk.receive(hook, desk.signed(hook, push(commit)))
    assert [(call.what, call.url) for call in desk.producer.calls] == [
        ("delete", ""),
        ("ingest", f"{RAW}/{SHA}/a.md"),
        ("ingest", f"{RAW}/{SHA}/docs/{quote('ü b')}.md"),
        ("ingest", f"{RAW}/{SHA}/c.md"),
    ]
    assert desk.producer.calls[0].object_id == hook.object_id(f"{RAW}/main/d.md")
    assert desk.producer.calls[1].metadata == {"repository": "o/r", "branch": "main", "path": "a.md", "commit": SHA}


def test_a_file_is_the_same_object_at_every_commit_and_when_it_goes() -> None:
    desk = Desk()
    hook = desk.add("github")
    for number, commit in enumerate(({"added": ["a.md"]}, {"modified": ["a.md"]}, {"removed": ["a.md"]})):
        desk.receive(hook, desk.signed(hook, push(commit, after=f"{number:040x}")))
    assert len({call.object_id for call in desk.producer.calls}) == 1
    assert [call.what for call in desk.producer.calls] == ["ingest", "ingest", "delete"]


def test_a_rename_is_a_delete_and_an_ingest() -> None:
    desk = Desk()
    hook = desk.add("github")
    sent = desk.sent(hook, push({"added": ["new.md"], "removed": ["old.md"]}))
    assert sorted(what for what, _ in sent) == ["delete", "ingest"]


paths = st.sampled_from(["a.md", "b.md", "x/c.md"])
changes = st.fixed_dictionaries(
    {}, optional={kind: st.lists(paths, unique=True, max_size=3) for kind in ("added", "modified", "removed")}
)


@given(st.lists(changes, max_size=6))
def test_the_last_commit_that_touches_a_file_decides_and_each_file_counts_once(
    commits: list[dict[str, list[str]]],
) -> None:
    desk = Desk()
    hook = desk.add("github")
    last: dict[str, bool] = {}
    for commit in commits:
        last |= dict.fromkeys(commit.get("removed", ()), False)
        last |= dict.fromkeys([*commit.get("added", ()), *commit.get("modified", ())], True)
    incoming = desk.signed(hook, push(*commits))
    actions = desk.receiver._scheme("github").read(hook, incoming).actions
    assert len(actions) == len(last)
    assert {a.object_id for a in actions if isinstance(a, Ingest)} == {
        hook.object_id(f"{RAW}/main/{path}") for path, there in last.items() if there
    }
    assert {a.object_id for a in actions if isinstance(a, Delete)} == {
        hook.object_id(f"{RAW}/main/{path}") for path, there in last.items() if not there
    }


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({}, push({"added": ["a.py", "Makefile"]})),
        ({"paths": ["docs/*"]}, push({"added": ["a.md"]})),
        ({"branches": ["release/*"]}, push({"added": ["a.md"]})),
        ({}, push({"added": ["a.md"]}, ref="refs/heads/other")),
        ({}, push({"added": ["a.md"]}, ref="refs/tags/main")),
        ({"repositories": ["other/*"]}, push({"added": ["a.md"]})),
        ({}, push({"added": ["a.md"]}, deleted=True)),
        ({}, {"ref": "refs/heads/main", "zen": 1}),
        ({}, push({"added": "a.md", "removed": {"a.md": 1}, "modified": [1, None]})),
        ({}, push("a.md", None)),  # type: ignore[arg-type]  # hostile
    ],
)
def test_what_a_hook_does_not_want_is_left(options: dict[str, Any], payload: dict[str, Any]) -> None:
    desk = Desk()
    assert desk.sent(desk.add("github", **options), payload) == []


def test_branches_and_paths_are_globs() -> None:
    desk = Desk()
    hook = desk.add("github", branches=["release/*"], paths=["docs/*.rst"], repositories=["o/*"])
    assert len(desk.sent(hook, push({"added": ["docs/deep/a.rst"]}, ref="refs/heads/release/2"))) == 1


def test_a_ping_and_an_unknown_event_do_nothing_and_say_so() -> None:
    desk = Desk()
    hook = desk.add("github")
    for kind in ("ping", "issues", ""):
        signed = desk.signed(hook, {"zen": kind})
        found = desk.receive(hook, Incoming({**signed.headers, "x-github-event": kind}, signed.body))
        assert (found.ingested, found.deleted, len(found.ignored)) == (0, 0, 1)


@pytest.mark.parametrize(("action", "what"), [("published", "ingest"), ("deleted", "delete"), ("edited", None)])
def test_the_files_of_a_release_come_and_go(action: str, what: str | None) -> None:
    desk = Desk()
    hook = desk.add("github", paths=["*.pdf"])
    url = "https://github.com/o/r/releases/download/v1/a.pdf"
    assets = [{"name": "a.pdf", "browser_download_url": url}, {"name": "a.zip", "browser_download_url": url + "x"}]
    payload = {"action": action, "release": {"tag_name": "v1", "assets": assets}, "repository": {"full_name": "o/r"}}
    assert [did for did, _ in desk.sent(hook, payload)] == ([what] if what else [])
    assert desk.sent(desk.add("github", releases=False), payload) == []


def test_a_replay_under_another_delivery_id_is_known_again() -> None:
    """X-GitHub-Delivery is not signed."""
    desk = Desk()
    hook = desk.add("github")
    signed = desk.signed(hook, push({"added": ["a.md"]}))
    desk.receive(hook, signed)
    replayed = Incoming({**signed.headers, "x-github-delivery": "another"}, signed.body)
    assert desk.receive(hook, replayed).status == "duplicate"
    assert len(desk.producer.calls) == 1


def test_the_old_sha1_header_counts_for_nothing() -> None:
    import hashlib
    import hmac

    desk = Desk()
    hook = desk.add("github")
    body = desk.signed(hook).body
    secret = hook.live_secrets(0)[0].encode()
    headers = {"x-hub-signature": "sha1=" + hmac.new(secret, body, hashlib.sha1).hexdigest()}
    with pytest.raises(HookRefused):
        desk.receive(hook, Incoming(headers, body))


def test_a_form_encoded_delivery_is_read_too() -> None:
    import json

    desk = Desk()
    hook = desk.add("github")
    body = b"payload=" + quote(json.dumps(push({"added": ["a.md"]}))).encode()
    signed = desk.signed(hook, body)
    headers = {**signed.headers, "content-type": "application/x-www-form-urlencoded", "x-github-event": "push"}
    assert desk.receive(hook, Incoming(headers, body)).ingested == 1


@pytest.mark.parametrize(
    "wrong", [{"raw_url": "file:///{ref}/{path}"}, {"raw_url": "https://h/"}, {"path": []}, {"paths": "*.md"}]
)
def test_options_that_cannot_be_are_refused_with_their_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        Desk().add("github", **wrong)


def test_enterprise_servers_have_another_place_for_files() -> None:
    desk = Desk()
    hook = desk.add("github", raw_url="https://git.example.com/raw/{repository}/{ref}/{path}?token=x")
    assert desk.sent(hook, push({"added": ["a.md"]})) == [
        ("ingest", f"https://git.example.com/raw/o/r/{SHA}/a.md?token=x")
    ]
