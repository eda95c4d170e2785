"""Pages of other sites may use the image API of a server with keys, as they use the cloud's, and play HLS from it.

A browser sends no key by itself, so a page can do no more than whoever gave it one. Without keys being a page of this
machine is the only right that there is (Note [Who may call]), and pages of other sites stay outside. WHEP has rules of
its own; settings and recordings of streams are not for pages of other sites.
"""

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_PLACES = re.compile(
    r".*/(v1/(results|anonymize|modes|version|files/[^/]*)|[^/]+/(index\.m3u8|segment\d+\.ts))"
)


class OtherSites(CORSMiddleware):
    """CORS for the image API and for HLS, and for nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app, ("*",), ("GET", "HEAD", "POST"), ("*",), expose_headers=("Retry-After",), max_age=86_400
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer, with what browsers need to hand it to the page."""
        if scope["type"] == "http" and _PLACES.fullmatch(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
