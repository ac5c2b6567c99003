"""The live page at the coordinator's address: anonymous, and without any data in it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from koinon.report.live_page import content_security_policy, live_page


def routes() -> list[Route]:
    """Return ``GET /``."""
    page = live_page()
    headers = {
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }

    async def answer(request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    return [Route("/", answer)]
