"""What a browser is shown: the live page, and what a join link is for. Anonymous, and without any data."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from koinon.report.live_page import content_security_policy, live_page

_INVITED = """This is a join link, and no page. It is for koinon's command line, once, in quotes:

koinon doctor 'LINK' APP_FILE
koinon join 'LINK' APP_FILE --data PATH
"""


def routes() -> list[Route]:
    """Return ``GET /`` and ``GET /join``."""
    page = live_page()
    headers = {
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }

    async def answer(request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    async def invited(request: Request) -> Response:
        return PlainTextResponse(_INVITED, headers=headers)

    return [Route("/", answer), Route("/join", invited)]
