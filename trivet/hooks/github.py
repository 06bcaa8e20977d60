"""GitHub: the files that a push changed, and the files of a release."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, quote

from pydantic import Field, field_validator

from trivet.hooks import Hook, Incoming, Reading, Sample, Verified
from trivet.hooks.options import complete, kept
from trivet.hooks.refusals import forged
from trivet.hooks.shared_secret import SharedSecret
from trivet.hooks.signatures import fingerprint, listing, mapping, parsed, same, text
from trivet.hooks.values import Action, Delete, Ingest
from trivet.values import Frozen

#: A push tells of no more commits, whatever it has.
_MOST_COMMITS = 2048
_PREFIX = "sha256="
_RAW = "https://raw.githubusercontent.com/{repository}/{ref}/{path}"
_SAMPLE_SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"


class GitHubOptions(Frozen):
    """Which files."""

    #: Paths, with `*` for any characters, slashes among them.
    paths: tuple[str, ...] = ("*.md", "*.markdown", "*.txt", "*.html", "*.htm", "*.pdf", "*.docx")
    #: Branches, in the same way; none: the repository's default branch.
    branches: tuple[str, ...] = ()
    #: `owner/name`, in the same way; none: any that signs with the hook's secret.
    repositories: tuple[str, ...] = ()
    #: Ingest the files of a release that is published.
    releases: bool = True
    #: Where a file lies; `{ref}` is the commit.
    raw_url: str = Field(_RAW, max_length=300)

    @field_validator("raw_url")
    @classmethod
    def _names_all(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")) or not all(f"{{{n}}}" in url for n in ("ref", "path")):
            raise ValueError("it is no http or https URL with {ref} and {path} in it")
        return url


class GitHubScheme(SharedSecret):
    """github.com and GitHub Enterprise; `X-Hub-Signature-256` alone counts."""

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return complete(GitHubOptions, given)

    def verify(self, hook: Hook, incoming: Incoming, now: float) -> Verified:
        right = [_signature(secret, incoming.body) for secret in hook.live_secrets(now)]
        if not same(incoming.header("x-hub-signature-256"), right):
            raise forged()
        # X-GitHub-Delivery is not signed: whoever has caught a delivery could send it again under another.
        return Verified(fingerprint(incoming.body))

    def read(self, hook: Hook, incoming: Incoming) -> Reading:
        how = kept(GitHubOptions, hook.options)
        payload = _payload(incoming)
        # The event's name is not signed either, so the body must look like it.
        kind = incoming.header("x-github-event")[:40]
        repository = text(mapping(payload.get("repository")).get("full_name"))
        if kind == "ping":
            return Reading("ping", ignored=("A ping says that the hook is known.",))
        if how.repositories and not _any(repository, how.repositories):
            return Reading(kind, ignored=(f"Repository {repository[:100]!r} is not one of this hook's.",))
        if kind == "push" and "ref" in payload:
            return _push(how, hook, payload, repository)
        if kind == "release" and "release" in payload:
            return _release(how, hook, payload)
        return Reading(kind or "event", ignored=("Only push, release and ping are read.",))

    def sample(self, hook: Hook, now: float, payload: bytes = b"") -> Sample:
        body = payload or json.dumps(_sample(kept(GitHubOptions, hook.options))).encode()
        kind = "release" if b'"release"' in body else "push"
        headers = {
            "x-github-event": kind,
            "x-github-delivery": secrets.token_hex(16),
            "x-hub-signature-256": _signature(hook.live_secrets(now)[0], body),
        }
        return Sample(Incoming(headers, body), self)


def _signature(secret: str, body: bytes) -> str:
    return _PREFIX + hmac.new(secret.encode(), body, "sha256").hexdigest()


def _payload(incoming: Incoming) -> dict[str, Any]:
    if incoming.header("content-type").lower().startswith("application/x-www-form-urlencoded"):
        fields = parse_qs(incoming.body.decode("utf-8", "replace"), max_num_fields=4)
        return parsed(fields.get("payload", [""])[0].encode())
    return parsed(incoming.body)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _push(how: GitHubOptions, hook: Hook, payload: dict[str, Any], repository: str) -> Reading:
    ref, after = text(payload.get("ref")), text(payload.get("after"))
    branch = ref.removeprefix("refs/heads/")
    default = text(mapping(payload.get("repository")).get("default_branch"))
    if branch == ref or not _any(branch, how.branches or (default,)):
        return Reading("push", ignored=(f"{ref[:100]!r} is not a branch of this hook's.",))
    if payload.get("deleted") is True or not after:
        return Reading("push", ignored=("The branch was deleted; which files it had is not said, so they stay.",))
    ignored = []
    if payload.get("forced") is True:
        ignored.append("The push was forced; files of commits that are gone are not named in it.")
    commits = [mapping(commit) for commit in listing(payload.get("commits"))]
    if len(commits) >= _MOST_COMMITS:
        ignored.append(f"The push may have more commits than the {_MOST_COMMITS} that it tells of.")
    present: dict[str, bool] = {}
    for commit in commits:
        for path in map(text, listing(commit.get("removed"))):
            present[path] = False
        for path in map(text, [*listing(commit.get("added")), *listing(commit.get("modified"))]):
            present[path] = True
    actions: list[Action] = []
    for path, there in present.items():
        if not path or not _any(path, how.paths):
            continue
        # The branch names the object, the commit the bytes: another push of it changes the same object.
        name = _raw(how, repository, branch, path)
        metadata = {"repository": repository, "branch": branch, "path": path, "commit": after}
        if there:
            actions.append(Ingest(_raw(how, repository, after, path), hook.object_id(name), metadata))
        else:
            actions.append(Delete(hook.object_id(name), name))
    left = len(present) - len(actions)
    if left:
        ignored.append(f"{left} of {len(present)} changed files are not of this hook's paths.")
    return Reading("push", tuple(actions), tuple(ignored))


def _raw(how: GitHubOptions, repository: str, ref: str, path: str) -> str:
    parts = {"repository": repository, "ref": ref, "path": path}
    url = how.raw_url
    for name, value in parts.items():
        url = url.replace(f"{{{name}}}", quote(value, safe="/"))
    return url


def _release(how: GitHubOptions, hook: Hook, payload: dict[str, Any]) -> Reading:
    done, release = text(payload.get("action")), mapping(payload.get("release"))
    kind = f"release.{done}"[:40]
    if not how.releases or done not in ("published", "deleted"):
        return Reading(kind, ignored=("Only releases that are published or deleted count, where releases are on.",))
    metadata = {"repository": text(mapping(payload.get("repository")).get("full_name"))}
    metadata["tag"] = text(release.get("tag_name"))
    actions: list[Action] = []
    assets = [mapping(asset) for asset in listing(release.get("assets"))]
    for asset in assets:
        url = text(asset.get("browser_download_url"))
        if not url or not _any(text(asset.get("name")), how.paths):
            continue
        named = hook.object_id(url)
        actions.append(Ingest(url, named, metadata) if done == "published" else Delete(named, url))
    left = len(assets) - len(actions)
    ignored = (f"{left} of {len(assets)} files are not of this hook's paths.",) if left else ()
    return Reading(kind, tuple(actions), ignored)


def _sample(how: GitHubOptions) -> dict[str, Any]:
    branch = next((each.replace("*", "x") for each in how.branches), "main")
    repository = next((each.replace("*", "x") for each in how.repositories), "octocat/handbook")
    suffix = next((each.rpartition("*")[2] for each in how.paths), ".md")
    return {
        "ref": f"refs/heads/{branch}",
        "after": _SAMPLE_SHA,
        "repository": {"full_name": repository, "default_branch": "main"},
        "commits": [
            {"added": [f"guide/start{suffix}"], "modified": [], "removed": [f"guide/begin{suffix}"]},
            {"added": [], "modified": [f"index{suffix}"], "removed": []},
        ],
    }
