"""OWASP API8 (2023) against the real app: what it says of itself, to whom it opens, and what browsers may do."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers.http.app import create_app
from producers.http.edge.access import is_loopback, keys_are_asked_for
from tests.security.conftest import Guarded, Tenant
from tests.support.api import Api, serving
from tests.support.fleet import ROOT
from trivet.errors import InvalidRequest
from trivet.settings import Settings

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def open_api(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """As `trivet serve` starts without any setting: on 127.0.0.1, without keys."""
    settings = settings_for(tmp_path_factory.mktemp("open"), f"o{uuid.uuid4().hex[:12]}")
    with serving(settings) as api:
        yield api


# ------------------------------------------------------------ who needs a key


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("127.0.0.1.example.com", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_only_loopback_addresses_are_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
    assert keys_are_asked_for(Settings(api_host=host)) is not local


def test_an_api_without_keys_does_not_start_anywhere_else(clean_env: dict[str, str], tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.10", "api.example.com"):
        with pytest.raises(InvalidRequest):
            create_app(Settings(api_host=host, api_keys="never"))
    told = subprocess.run(
        [sys.executable, "-m", "producers.http", "--host", "0.0.0.0", "--port", "0"],
        cwd=ROOT,
        env={**clean_env, "TRIVET_API_KEYS": "never", "TRIVET_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 2
    assert "without API keys" in told.stderr
    assert "Traceback" not in told.stderr


def test_on_loopback_no_key_is_needed(open_api: Api) -> None:
    assert open_api.get("/v1/buckets").status_code == 200
    assert open_api.post("/v1/keys", {}).status_code == 201


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "[bad", "10.0.0.1"])
def test_a_name_that_was_made_to_mean_this_machine_opens_nothing(open_api: Api, host: str) -> None:
    for method, path in (("GET", "/v1/buckets"), ("POST", "/v1/keys"), ("DELETE", "/v1/buckets/b")):
        assert open_api.http.request(method, path, headers={"Host": host}).status_code in (400, 403), (method, path)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1.evil.example", "file://", "http://127.0.0.1:1", "http://["],
)
def test_a_web_page_cannot_use_an_open_api(open_api: Api, origin: str) -> None:
    hows: list[dict[str, Any]] = [{"json": {}}, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}]
    for how in hows:
        headers = {"Origin": origin, **how.pop("headers", {})}
        assert open_api.http.post("/v1/buckets/list", headers=headers, **how).status_code == 403


@pytest.mark.parametrize("header", ["8.8.8.8", "10.0.0.1", "2001:db8::1"])
def test_what_a_proxy_hands_on_from_elsewhere_is_refused_by_an_open_api(open_api: Api, header: str) -> None:
    assert open_api.http.get("/v1/buckets", headers={"X-Forwarded-For": header}).status_code == 403


def test_the_page_of_the_docs_may_use_it(open_api: Api) -> None:
    assert open_api.http.get("/v1/buckets", headers={"Origin": open_api.url}).status_code == 200


# ------------------------------------------------------------ what browsers may do


def test_only_listed_origins_may_read_answers(guarded: Guarded, alice: Tenant) -> None:
    for origin, allowed in (
        (ORIGIN, ORIGIN),
        ("https://evil.example", None),
        (f"{ORIGIN}.evil.example", None),
        ("null", None),
    ):
        answer = guarded.ask("GET", "/v1/buckets", alice.key, headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed, origin
        assert "access-control-allow-credentials" not in answer.headers
        asked = guarded.api.http.options(
            "/v1/buckets",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-namespace,idempotency-key",
            },
        )
        assert asked.headers.get("access-control-allow-origin") == allowed, origin
        assert (asked.status_code == 200) is (allowed is not None)


def test_no_origin_is_allowed_by_default(open_api: Api) -> None:
    answer = open_api.http.options("/v1/buckets", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["*", "example.com", "https://example.com/", "https://*.example.com/x", "ftp://a", ""]
)
def test_an_entry_that_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidRequest, match="TRIVET_API_ORIGINS"):
        create_app(Settings(api_origins=(origin,)))


@pytest.mark.parametrize("path", ["/v1/buckets", "/v1/nothing", "/health", "/openapi.json", "/v1/keys", "/docs"])
def test_every_answer_has_the_headers_that_keep_browsers_from_using_it_wrongly(
    guarded: Guarded, alice: Tenant, path: str
) -> None:
    for key in (alice.key, ""):
        answer = guarded.ask("GET", path, key)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert "public" not in answer.headers["Cache-Control"]
        assert "server" not in answer.headers


def test_what_holds_a_secret_is_kept_by_no_cache(guarded: Guarded, alice: Tenant) -> None:
    answer = guarded.ask("POST", "/v1/keys", alice.key, {"scopes": ["read"]})
    assert answer.headers["Cache-Control"] == "no-store"
    again = guarded.ask("POST", "/v1/keys", alice.key, {"scopes": ["read"]}, headers={"Idempotency-Key": "same"})
    other = guarded.ask("POST", "/v1/keys", alice.key, {"scopes": ["read"]}, headers={"Idempotency-Key": "same"})
    # No answer with a key in it is kept to be given again.
    assert again.json()["api_key"] != other.json()["api_key"]


# ------------------------------------------------------------ what it says of itself


def test_errors_tell_no_insides(guarded: Guarded, alice: Tenant) -> None:
    answers = [
        guarded.ask("GET", "/v1/nothing", alice.key),
        guarded.ask("PUT", "/v1/buckets", alice.key),
        guarded.ask("GET", "/v1/buckets/%00", alice.key),
        guarded.ask("GET", "/v1/buckets/" + "a" * 5000, alice.key),
        guarded.ask("GET", "/v1/tasks/task_%F0%9F%98%80", alice.key),
        guarded.ask("POST", "/v1/buckets", alice.key, {"bucket_name": "\x00\ud7ff"}),
        guarded.ask("POST", "/v1/collections", alice.key, {"collection_name": "../../etc"}),
        guarded.ask("GET", "/v1/buckets?cursor=AAAA", alice.key),
    ]
    inside = (
        guarded.settings.redis_url,
        guarded.settings.redis_prefix,
        "Traceback",
        'File "',
        "site-packages",
        str(ROOT),
    )
    for answer in answers:
        assert answer.status_code < 500, (answer.request.url, answer.text)
        assert not [word for word in inside if word in answer.text], answer.text
        assert answer.status_code < 400 or answer.json()["success"] is False


def test_health_names_no_hosts_to_strangers(guarded: Guarded) -> None:
    answer = guarded.api.get("/health/ready")
    assert answer.status_code in (200, 503)
    assert {each["message"] for each in answer.json()["dependencies"].values()} == {""}
    assert guarded.settings.redis_url not in answer.text


def test_the_log_has_no_key_no_secret_and_no_query(guarded: Guarded, alice: Tenant) -> None:
    guarded.ask("GET", "/v1/buckets?signature=hidden-query", alice.key)
    guarded.ask("POST", f"/v1/hooks/{alice.ids['hook_id']}", headers={"X-Signature": "hidden-signature"})
    url = "https://user:hidden-password@example.com/a?X-Amz-Signature=hidden-amz"
    collection = alice.ids["collection_identifier"]
    guarded.ask("POST", f"/v1/collections/{collection}/ingest", alice.key, {"source": {"url": url}})
    written = "".join(log.read_text(errors="replace") for log in (guarded.settings.state_dir / "api").glob("*.log"))
    assert alice.key.rpartition("_")[2] not in written
    assert "hidden-" not in written
