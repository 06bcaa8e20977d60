"""How a client in the same folder finds the running system without any variable set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trivet.embedded.seaweedfs import credentials
from trivet.settings import Settings
from trivet.supervisor.state import Folder, write_json

#: What a client must share with the workers; the rest is its own business.
_SHARED = (
    "redis_prefix",
    "s3_bucket",
    "s3_prefix",
    "s3_region",
    "namespace",
    "durable_accept",
    "model_aliases",
    "model_dir",
    "model_hub",
    "index_url",
    "retriever",
)


def write_endpoints(folder: Folder, settings: Settings, explicit: Iterable[str], *, redis: bool, s3: bool) -> None:
    """Say where the system is; `redis` and `s3` tell which of the two servers are embedded ones.

    Secrets that the caller brought are not written: who brought them has them.
    """
    known: dict[str, Any] = {}
    if redis or urlsplit(settings.redis_url).password is None:
        known["redis_url"] = settings.redis_url
    known["s3_endpoint"] = settings.s3_endpoint
    if s3:
        known["s3_key_file"] = str(folder.root / "s3" / "credentials.json")
    shared = settings.model_dump(mode="json", include=set(_SHARED) & set(explicit))
    write_json(folder.endpoints, {**known, "settings": shared})


def connected_settings(settings: Settings) -> Settings:
    """These settings, pointed at the system that runs in their state folder.

    What was set explicitly (an argument or a TRIVET_ variable) stays. Where no system runs, they come back as they are.
    """
    folder = Folder(settings.state_dir)
    if not folder.read().alive():
        return settings
    try:
        known: dict[str, Any] = json.loads(folder.endpoints.read_text("utf-8"))
    except (OSError, ValueError):
        return settings
    found: dict[str, Any] = dict(known.get("settings", {}))
    if "redis_url" in known:
        found["redis_url"] = known["redis_url"]
    if not settings.model_fields_set & {"s3_endpoint", "s3_access_key"}:
        found["s3_endpoint"] = known.get("s3_endpoint", "")
        if key_file := known.get("s3_key_file"):
            access_key, secret_key = credentials(Path(key_file))
            found |= {"s3_access_key": access_key, "s3_secret_key": secret_key}
    explicit = {name: getattr(settings, name) for name in settings.model_fields_set}
    return type(settings).load(**(found | explicit))
