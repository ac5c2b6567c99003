"""The pages of the documentation, taken apart: their code, their commands, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
_FENCE = re.compile(r"^```(\w*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")
_FILE = re.compile(r"^# (\w+\.py)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is the number of its first inner line, from 1."""

    language: str
    line: int
    lines: tuple[str, ...]
    not_run: str | None  # why it is shown and not run

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if its first line says so."""
        named = _FILE.match(self.lines[0]) if self.language == "python" and self.lines else None
        return named.group(1) if named else None


def blocks(page: Path) -> list[Block]:
    """Return the page's fenced blocks in order. A fence that does not end is an error."""
    found, before, opened = [], "", None
    text = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(text, start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            why = _NOT_RUN.match(before)
            opened = (fence.group(1), number + 1, why.group(1) if why else None)
        elif opened is not None and line == "```":
            language, first, reason = opened
            found.append(Block(language, first, tuple(text[first - 1 : number - 1]), reason))
            opened = None
        before = line or before
    if opened is not None:
        raise ValueError(f"{page.name}: the block from line {opened[1]} does not end")
    return found


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield ``(line, words)`` of every ``koinon`` command of the page's console blocks."""
    for block in blocks(page):
        if block.language == "console":
            for offset, line in enumerate(block.lines):
                for part in line.split("&&"):
                    words = shlex.split(part)
                    if words and Path(words[0]).name == "koinon":
                        yield block.line + offset, words[1:]


def program(page: Path) -> str:
    """Return the page as one Python program whose line numbers are the page's own.

    Python blocks are its code, blocks that begin with a file name write that file, and every line of a
    console block that begins with ``koinon`` runs that command.
    """
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for block in blocks(page):
        if block.not_run is not None:
            continue
        if block.file:
            text = "\n".join(block.lines) + "\n"
            lines[block.line - 1] = f"__import__('pathlib').Path({block.file!r}).write_text({text!r})"
        elif block.language == "python":
            lines[block.line - 1 : block.line - 1 + len(block.lines)] = block.lines
        elif block.language == "console":
            for offset, line in enumerate(block.lines):
                if line.startswith("koinon "):
                    lines[block.line - 1 + offset] = _run(shlex.split(line)[1:])
    return "\n".join(lines) + "\n"


def links(page: Path) -> list[str]:
    """Return the targets of the page's links outside code."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page):
        text = text.replace("\n".join(block.lines), "")
    return _LINK.findall(text)


def anchors(page: Path) -> set[str]:
    """Return the names by which the page's headings can be linked."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _run(words: list[str]) -> str:
    main = "from koinon.cli.main import main; main()"
    return f"__import__('subprocess').run([__import__('sys').executable, '-c', {main!r}, *{words!r}], check=True)"
