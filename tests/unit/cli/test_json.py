"""What the README says of all commands holds for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from trivet.cli import app

_README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from _commands(child, (*path, name))


def test_every_command_but_those_that_run_until_they_are_stopped_has_json_and_a_sentence_of_help() -> None:
    found = dict(_commands(typer.main.get_command(app)))
    assert {path[0] for path in found} >= {"ingest", "endpoints", "rebuild", "purge", "why"}
    silent = {path for path, command in found.items() if not any("--json" in each.opts for each in command.params)}
    assert silent == {("serve",), ("worker",)}
    assert all((command.help or "").rstrip().endswith(".") for command in found.values())


def test_the_readme_lists_every_command() -> None:
    table = _README.partition("## Command line")[2].partition("## ")[0]
    shown = {word for code in re.findall(r"`(?:trivet )?([^`]+)`", table) for word in code.split()[:1]}
    assert {path[0] for path, _ in _commands(typer.main.get_command(app))} <= shown
