"""`python -m infra.images [--builder NAME|PROGRAM] [--flags FLAGS]`: build and try every image."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

from infra.images.builders import builder_of
from infra.images.trial import trial
from trivet.cli.console import say
from trivet.errors import TrivetError
from trivet.settings import Settings

_DOCKERFILE = Path(__file__).parent.parent / "docker" / "Dockerfile"


def main() -> int:
    """Exit status 0 if every image was built and did its work."""
    parser = argparse.ArgumentParser(prog="infra.images", description=__doc__)
    parser.add_argument("--builder", default="", help="docker, podman, buildah or a program; else the first that works")
    parser.add_argument("--flags", default="", help="more options for the engine's build, such as --volume A:B:ro")
    options = parser.parse_args()
    folder = Settings.load().state_dir.absolute() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    # Not every builder takes arguments: the one that is needed becomes the default.
    text = re.sub(r"^ARG WEIGHTS=.*$", "ARG WEIGHTS=embedded", _DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    (folder / "Dockerfile").write_text(text, "utf-8")
    try:
        builder = builder_of(options.builder, folder / "Dockerfile", tuple(shlex.split(options.flags)))
        try:
            sizes = trial(builder, folder)
        finally:
            builder.remove()
    except TrivetError as error:
        say(f"image-test: {error}")
        return 1
    say("All images do their work: " + ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
