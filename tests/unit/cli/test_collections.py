"""`trivet collections`: options become the pipeline, and the pipeline is shown as options."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.cli import OK, main
from trivet.cli.common import Common
from trivet.values import Collection, Outputs, Pipeline


class Client:
    """Remembers collections."""

    def __init__(self) -> None:
        self.made: dict[str, Collection] = {}

    def create_collection(self, name: str, *, pipeline: Pipeline, exist_ok: bool) -> Collection:
        self.made[name] = Collection(namespace="default", name=name, pipeline=pipeline)
        return self.made[name]

    def collection(self, name: str) -> Collection:
        return self.made[name]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(Common, "client", lambda _: made)
    monkeypatch.setenv("COLUMNS", "200")
    return made


@pytest.mark.parametrize(
    ("options", "outputs", "shown"),
    [
        ([], {}, "dense, sparse, colbert float16"),
        (
            ["--colbert", "int8", "--colbert-pooling", "2", "--colbert-dimensions", "512", "--dense-dimensions", "256"],
            {"colbert": "int8", "colbert_pooling": 2, "colbert_dimensions": 512, "dense_dimensions": 256},
            "dense of 256 dimensions, sparse, colbert int8 of 512 dimensions pooled by 2",
        ),
        (["--colbert-layout", "list"], {"colbert_layout": "list"}, "dense, sparse, colbert float16 list"),
        (["--colbert", "off", "--no-dense"], {"colbert": "off", "dense": False}, "sparse"),
    ],
)
def test_options_of_outputs_become_the_pipeline_and_are_shown(
    client: Client, capsys: pytest.CaptureFixture[str], options: list[str], outputs: dict[str, Any], shown: str
) -> None:
    assert main(["collections", "create", "docs", *options]) == OK
    assert client.made["docs"].pipeline.outputs == Outputs(**outputs)
    capsys.readouterr()
    assert main(["collections", "show", "docs"]) == OK
    assert " ".join(capsys.readouterr().out.split()).endswith(f"at most 512 tokens {shown}")
