"""Every snippet of the documentation runs, and every command it shows exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pages
import pytest

from koinon.cli.exit_status import Exit
from koinon.cli.main import cli

CHINESE = pages.ROOT / "README.zh.md"  # its code is the English one's, which a test below holds
WITH_CODE = [
    page
    for page in pages.PAGES
    if page != CHINESE and any(block.language == "python" and not block.not_run for block in pages.blocks(page))
]


def _name(page: Path) -> str:
    return str(page.relative_to(pages.ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_the_snippets_of_a_page_run_in_order(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(pages.program(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(pages.ROOT / "src"), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, f"{_name(page)}:\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", pages.PAGES, ids=_name)
def test_every_command_shown_exists(page: Path) -> None:
    for line, words in pages.commands(page):
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        command, name = _command(words)
        known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
        assert set(options) <= known, f"{_name(page)}:{line}: {sorted(set(options) - known)} of koinon {name}"


def _command(words: list[str]) -> tuple[click.Command, str]:
    """Return the command of a line, a command of a group if it names one."""
    command: click.Command = cli
    name = ""
    for word in (word for word in words if not word.startswith("-")):
        if not isinstance(command, click.Group):
            break
        command, name = command.commands[word], f"{name} {word}".strip()
    return command, name


def test_every_command_option_and_exit_status_is_documented() -> None:
    text = (pages.ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    inner = [
        own
        for command in cli.commands.values()
        if isinstance(command, click.Group)
        for own in command.commands.values()
    ]
    options = {option for command in (*cli.commands.values(), *inner) for p in command.params for option in p.opts}
    assert [name for name in cli.commands if f"`koinon {name}" not in text] == []
    assert [option for option in options if option.startswith("-") and f"`{option}" not in text] == []
    assert [status for status in Exit if f"| {status.value} | {status.name} |" not in text] == []


@pytest.mark.parametrize("page", pages.PAGES, ids=_name)
def test_every_extra_shown_exists(page: Path) -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text())["project"]
    for block in pages.blocks(page):
        for asked in re.findall(r"(?:\.|koinon)\[([\w,]+)\]", "\n".join(block.lines)):
            assert set(asked.split(",")) <= set(project["optional-dependencies"]), f"{_name(page)}:{block.line}"


def test_the_two_commands_of_the_readme_are_the_first_ones() -> None:
    for name in ("README.md", "README.zh.md"):
        first, second = [b for b in pages.blocks(pages.ROOT / name) if b.language == "console"][:2]
        assert first.lines[0].endswith(".venv/bin/koinon demo")
        assert second.lines[0].endswith(".venv/bin/python -m pytest -n 2 --dist worksteal")


def test_both_readmes_show_the_same_code() -> None:
    english, chinese = (pages.blocks(pages.ROOT / name) for name in ("README.md", "README.zh.md"))
    assert [(b.language, b.lines) for b in english] == [(b.language, b.lines) for b in chinese]
