"""What every test may use: a real Valkey and a real S3, one of each per test process, and settings that share nothing.

No service is ever skipped: where a server cannot start, the tests that need it fail.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import structlog
from pydantic import SecretStr

from trivet.embedded import servers
from trivet.embedded.seaweedfs import SeaweedFS
from trivet.embedded.valkey import Valkey
from trivet.settings import Settings

if TYPE_CHECKING:
    from trivet.stores import ObjectStore

# A shared machine is slow at times, which says nothing about the code.
hypothesis.settings.register_profile("trivet", deadline=None)
hypothesis.settings.load_profile("trivet")
# `make machine`: what looks at its name takes many more steps.
hypothesis.settings.register_profile("machine", deadline=None)

_BUCKET = "trivet-tests"
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--real-model FOLDER`: tests that run a small random model by default take this one. `--parity-texts N`: more."""
    parser.addoption("--real-model", default="", help="folder of a model to use in place of small random ones")
    parser.addoption("--parity-texts", type=int, default=40, help="how many texts are held against FlagEmbedding")


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3 server."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str


def scrubbed(environ: dict[str, str]) -> dict[str, str]:
    """The environment without anything that would point a test at a system outside itself."""
    return {
        key: value
        for key, value in environ.items()
        if not key.startswith(("TRIVET_", "AWS_", "CELERY_")) and key.lower() not in _PROXIES
    }


@pytest.fixture(scope="session", autouse=True)
def _scrubbed_environment() -> Iterator[None]:
    before = dict(os.environ)
    clean = scrubbed(before)
    for key in before.keys() - clean.keys():
        del os.environ[key]
    # boto3 would look for an instance role, and for a user's own profile.
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_reaches_children() -> Iterator[None]:
    """Shells let a job in the background ignore SIGINT, and its children, which tests send SIGINT to, inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that is run in this process sets up logging for the whole of it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def clean_env() -> dict[str, str]:
    """An environment for child processes that names no other system."""
    return scrubbed(dict(os.environ))


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Valkey, AOF on; it ends with this test process, however that ends."""
    folder = tmp_path_factory.mktemp("valkey")
    server = Valkey(folder / "data", log=folder / "valkey.log", max_bytes=512 << 20, rng=random.Random())
    with servers.running(server):
        yield server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, _scrubbed_environment: None) -> Iterator[S3]:
    """A real S3 server with a bucket; it ends with this test process, however that ends."""
    folder = tmp_path_factory.mktemp("s3")
    server = SeaweedFS(folder / "data", bucket=_BUCKET, log=folder / "s3.log", rng=random.Random())
    with servers.running(server):
        yield S3(server.endpoint, *server.keys, bucket=_BUCKET)


@pytest.fixture(scope="session")
def settings_for(valkey_url: str, s3: S3) -> Callable[..., Settings]:
    """Makes settings for the real servers: `settings_for(state_dir, name, **changes)`, with keys under the name."""

    def make(state_dir: Path, name: str, **changes: Any) -> Settings:
        return Settings(
            state_dir=state_dir,
            redis_url=valkey_url,
            redis_prefix=f"{name}:",
            s3_endpoint=s3.endpoint,
            s3_bucket=s3.bucket,
            s3_prefix=name,
            s3_access_key=s3.access_key,
            s3_secret_key=SecretStr(s3.secret_key),
            model_hub=False,
            **changes,
        )

    return make


@pytest.fixture
def settings(settings_for: Callable[..., Settings], tmp_path: Path) -> Settings:
    """Settings for the real servers; no two tests share a key in Redis, a key on S3 or a folder."""
    return settings_for(tmp_path / "state", f"t{uuid.uuid4().hex[:12]}")


@pytest.fixture
def store(settings: Settings) -> ObjectStore:
    """The real S3 store of `settings`."""
    from trivet.stores import open_store

    return open_store(settings)
