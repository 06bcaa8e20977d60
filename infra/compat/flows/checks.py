"""What a flow has shown, one JSON line each; the last line of a flow that failed says why."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

BASE = os.environ["COMPAT_BASE"]
SITE = os.environ["COMPAT_SITE"]
KEY = os.environ.get("COMPAT_KEY", "sk_compat")
DOCUMENTS: dict[str, str] = json.loads(os.environ["COMPAT_DOCUMENTS"])
QUESTIONS: dict[str, str] = json.loads(os.environ["COMPAT_QUESTIONS"])
_GIVE_UP_SECONDS = 240.0


def shown(what: str, holds: object, found: Any = None) -> None:
    """A step that went as it should. Ends the flow where it did not."""
    print(json.dumps({"step": what, "ok": bool(holds)}), flush=True)
    if not holds:
        raise SystemExit(f"{what}: {found!r}")


def until(look: Callable[[], str], wanted: str) -> str:
    """Poll a status as a client would, until it is what is wanted or has failed."""
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while (found := look()) != wanted and time.monotonic() < deadline:
        if found in ("FAILED", "CANCELED", "COMPLETED_WITH_ERRORS"):
            break
        time.sleep(0.3)
    return found


def url(name: str) -> str:
    """Where a document is served."""
    return f"{SITE}/{name}.txt"


def ranked_right(what: str, ask: Callable[[str], list[str]]) -> None:
    """Every question has its document first."""
    for question, name in QUESTIONS.items():
        texts = ask(question)
        shown(f"{what}: {question}", texts and texts[0] == DOCUMENTS[name], texts[:2])
