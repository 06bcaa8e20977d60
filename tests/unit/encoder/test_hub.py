"""Models of a hub, against a real HTTP server that answers as the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from trivet.encoder import load_encoder
from trivet.encoder.models import resolve
from trivet.errors import ModelInvalid, ModelUnavailable
from trivet.settings import Settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PINNED = "5617a9f61b028005a4858fdac845db406aefb181"


class Hub:
    """One model under the ids lab/tiny and BAAI/bge-m3, at one commit each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        names = sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())
        for model, commit in (("lab/tiny", COMMIT), ("BAAI/bge-m3", PINNED)):
            if path == f"api/models/{model}" or path.startswith(f"api/models/{model}/revision/"):
                if path.count("/revision/") and path.split("/revision/")[1] not in (commit, "main"):
                    break
                siblings = [{"rfilename": name} for name in names]
                return self.send(request, json.dumps({"id": model, "sha": commit, "siblings": siblings}).encode(), body)
            if path.startswith(f"api/models/{model}/tree/"):
                rows = [self.entry(name) for name in names]
                return self.send(request, json.dumps(rows).encode(), body)
            if path.startswith(f"{model}/resolve/{commit}/"):
                name = path.split(f"/resolve/{commit}/")[1]
                if name in names:
                    if body:
                        self.served.append(name)
                    content = (self.folder / name).read_bytes()
                    return self.send(request, content, body, commit=commit)
        request.send_response(404)
        request.send_header("X-Error-Code", "RevisionNotFound" if "/revision/" in path else "RepoNotFound")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return None

    def entry(self, name: str) -> dict[str, object]:
        content = (self.folder / name).read_bytes()
        return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}

    def send(self, request: BaseHTTPRequestHandler, content: bytes, body: bool, *, commit: str = "") -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        if commit:
            request.send_header("X-Repo-Commit", commit)
            request.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        request.end_headers()
        if body:
            request.wfile.write(content)


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    point_at(hub.url, monkeypatch, tmp_path)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


@pytest.fixture
def online(local: Settings) -> Settings:
    return local.model_copy(update={"model_hub": True})


def test_identity_needs_the_small_files_alone(hub: Hub, online: Settings) -> None:
    model = resolve(online, "lab/tiny")
    assert (model.identity.name, model.identity.revision) == ("lab/tiny", COMMIT)
    assert "tokenizer.json" in hub.served
    assert "model.safetensors" not in hub.served


def test_bge_m3_is_pinned(hub: Hub, online: Settings) -> None:
    assert resolve(online, "BAAI/bge-m3").identity.revision == PINNED


def test_weights_come_when_an_encoder_loads_them(hub: Hub, online: Settings) -> None:
    encoder = load_encoder(online, "lab/tiny", dtype="fp32")
    assert hub.served.count("model.safetensors") == 1
    assert "model.safetensors" in encoder.passport.checksums
    assert encoder.passport.provenance == f"Hugging Face hub: lab/tiny at {COMMIT}"


def test_a_model_that_was_fetched_once_needs_no_hub(
    hub: Hub, online: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = load_encoder(online, "lab/tiny", revision=COMMIT).identity
    hub.server.shutdown()
    point_at("http://127.0.0.1:9", monkeypatch, tmp_path)
    assert load_encoder(online, "lab/tiny", revision=COMMIT).identity == first


def test_an_unknown_model_or_revision_is_unavailable(hub: Hub, online: Settings) -> None:
    with pytest.raises(ModelUnavailable, match="the model hub answered 404 for 'lab/none'"):
        resolve(online, "lab/none")
    with pytest.raises(ModelUnavailable, match="answered 404"):
        resolve(online, "lab/tiny", "f" * 40)


def test_a_name_that_no_hub_takes_is_unavailable(hub: Hub, online: Settings) -> None:
    with pytest.raises(ModelUnavailable, match="is no name that the model hub could know"):
        resolve(online, "a/b/c")


def test_a_hub_model_without_heads_is_invalid(hub: Hub, online: Settings) -> None:
    (hub.folder / "colbert_linear.pt").unlink()
    with pytest.raises(ModelInvalid, match=r"lacks colbert_linear\.pt"):
        resolve(online, "lab/tiny")


def test_a_hub_that_refuses_connections_is_said_to_be_out_of_reach(
    online: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        point_at(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch, tmp_path)
        with pytest.raises(ModelUnavailable, match=r"the model hub does not answer.*TRIVET_MODEL_ALIASES"):
            resolve(online, "BAAI/bge-m3")


def test_a_hub_that_never_answers_is_given_up_on(
    online: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("trivet.encoder.hub.TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch, tmp_path)
        with pytest.raises(ModelUnavailable, match="the model hub does not answer"):
            resolve(online, "BAAI/bge-m3")
