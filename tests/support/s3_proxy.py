"""The proxy before the real S3, as tests steer it: write after write, in the order that they say."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Self

import pytest

from infra.faults.s3_proxy import S3Proxy as Proxy

#: What may become of a write: done as asked; connection closed before or after it was done; answered with an error.
WRITE_MISHAPS = ("ok", "drop before", "drop after", "409", "500", "503")


class S3Proxy:
    """Forwards everything to `target`; writes meet `mishaps` in their order, and none after the last."""

    def __init__(self, target: str) -> None:
        self.mishaps: list[str] = []
        self.cut_reads = False
        self.writes = 0
        self._proxy = Proxy(target, self._policy)
        self.url = self._proxy.url

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._proxy.__exit__(*error)

    def without_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let boto3's retries follow one another at once."""
        monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))

    def _policy(self, method: str) -> str:
        if method == "GET" and self.cut_reads:
            return "cut"
        if method != "PUT":
            return "ok"
        self.writes += 1
        return self.mishaps.pop(0) if self.mishaps else "ok"
