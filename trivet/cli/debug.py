"""Whether the user asked for stack traces."""

from __future__ import annotations


def wanted() -> bool:
    """True with TRIVET_LOG_LEVEL=DEBUG; a setting that cannot be read counts as no."""
    from trivet.errors import TrivetError
    from trivet.settings import Settings

    try:
        return Settings.load().log_level.upper() == "DEBUG"
    except TrivetError:
        return False
