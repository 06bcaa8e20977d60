"""One API and one fleet for all tests of this folder, on the real servers, with the fake encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.api import Api, serving
from tests.support.fleet import fleet
from tests.support.web import Server
from trivet.settings import Settings


@pytest.fixture(scope="session")
def source() -> Iterator[Server]:
    """A web server whose pages tests add to."""
    server = Server({})
    yield server
    server.close()


@pytest.fixture(scope="session")
def live(settings_for: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory, source: Server) -> Settings:
    """Settings of the API and its fleet."""
    return settings_for(
        tmp_path_factory.mktemp("http"),
        "http",
        model_aliases={"BAAI/bge-m3": "fake"},
        allow_addresses=(source.place,),
        lease_seconds=3.0,
        heartbeat_seconds=0.5,
        sweep_seconds=0.2,
        retry_base_seconds=0.02,
        max_attempts=1,
        source_read_seconds=1.0,
    )


@pytest.fixture(scope="session")
def workers(live: Settings) -> Iterator[None]:
    """Workers of all stages."""
    with fleet(live) as made:
        made.start_all()
        yield


@pytest.fixture(scope="session")
def api(live: Settings) -> Iterator[Api]:
    """The API alone."""
    with serving(live) as made:
        yield made


@pytest.fixture
def running(api: Api, workers: None) -> Api:
    """The API, with workers behind it."""
    return api
