"""Every link between pages leads somewhere."""

from __future__ import annotations

from pathlib import Path

import pages
import pytest


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: str(page.relative_to(pages.ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in pages.links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert target.is_relative_to(pages.ROOT), f"{page.name} links out of the repository: {link}"
        if anchor:
            assert anchor in pages.anchors(target), f"{page.name} links to {link}; {target.name} has no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [pages.ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            targets = [link.partition("#")[0] for link in pages.links(page) if not link.startswith("https://")]
            todo += [(page.parent / target).resolve() for target in targets if target]
    assert not set(pages.PAGES) - reached
