"""Who may ask the service for what, before any of it is looked at.

A service on 127.0.0.1 can be reached by every page that a browser on the machine has open: by a
form that posts to it, and by a foreign name that its owner points at 127.0.0.1 (DNS rebinding). So
the name in Host has to be one of this machine's, and a browser has to say that the request comes
from the service's own page. Beyond the machine itself, a token is asked for.

Also here: the bound on a request's bytes and on the wait for them, the headers that keep a page
from loading anything from elsewhere, and one line in the log for each request, without its query or
contents.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, cookie_parser
from starlette.responses import JSONResponse, RedirectResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_log = logging.getLogger("reconpatch.access")

API = "/api/v1"
COOKIE = "reconpatch"
SHORTEST_TOKEN = 16
PATIENCE = 60.0
"""Seconds without a byte of a body after which it is given up: its sender may have lost power."""
OPEN_PATHS = frozenset({f"{API}/health"})
"""What is answered without a token."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        any_host: whatever Host says; for a service with a token only. Else it has to name this
            machine.
        token: asked for where it is given.
        secure: the service speaks TLS, so the cookie is for TLS only.
    """

    any_host: bool = False
    token: str | None = None
    secure: bool = False

    @property
    def cookie(self) -> str:
        """What the page's cookie holds instead of the token."""
        return hashlib.sha256(f"{COOKIE} {self.token}".encode()).hexdigest()


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further: a status and one sentence."""

    status: int
    sentence: str


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refusal(access: Access, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
    """Why a request is refused, or None.

    Args:
        access: who may ask.
        method: of the request, in capitals.
        path: of the request, without its query.
        headers: of the request, their names in lower case.
    """
    host = headers.get("host", "")
    if not access.any_host and not is_loopback(_name(host)):
        return Refusal(421, "the service is not known by this name: call it by 127.0.0.1")
    if _from_elsewhere(method, headers, host):
        return Refusal(403, "the request comes from another site's page: use the service's own")
    if access.token is not None and path not in OPEN_PATHS and not _has_token(access, headers):
        return Refusal(
            401, "a token is needed: send 'Authorization: Bearer TOKEN', or open /?token=TOKEN"
        )
    return None


def _name(host: str) -> str:
    """Host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _from_elsewhere(method: str, headers: Mapping[str, str], host: str) -> bool:
    """Whether a browser says that another site's page asks; programs say nothing."""
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        # Following a link to the page is no harm; what it then asks for is same-origin.
        return not (method == "GET" and headers.get("sec-fetch-mode") == "navigate")
    origin = headers.get("origin")
    if origin is None or method in _SAFE:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


def _has_token(access: Access, headers: Mapping[str, str]) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and access.token is not None:
        return hmac.compare_digest(given.strip().encode(), access.token.encode())
    cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
    return hmac.compare_digest(cookie.encode(), access.cookie.encode())


class TooLargeError(Exception):
    """A request's body goes past its bound."""


class Guard:
    """ASGI middleware around all of the service.

    Args:
        app: what it guards.
        access: who may ask.
        most_bytes: the bound of a request's body, by its path.
        count: told method, route and status of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        most_bytes: Callable[[str], int],
        count: Callable[[str, str, int], None],
    ) -> None:
        self._app = app
        self._access = access
        self._most_bytes = most_bytes
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._logged(scope, receive, send)

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_headers(scope["path"]))
            try:
                await send(message)
            except Exception as error:  # the wire broke: there is nobody left to be told
                access_log.info("an answer could not be sent: %s", type(error).__name__)

        try:
            await self._guarded(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._count(scope["method"], route, status)
            client = scope.get("client") or ("?", 0)
            access_log.info(
                "%s %s %s %d %.0f ms", client[0], _printable(scope["method"]),
                _printable(scope["path"]), status, 1000 * (time.perf_counter() - began),
            )  # fmt: skip

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = HTTPConnection(scope)
        method, path = scope["method"], scope["path"]
        most = self._most_bytes(path)
        length = asked.headers.get("content-length", "0")
        if (method, path) == ("GET", "/") and self._opens(asked.query_params.get("token", "")):
            await self._welcome(scope, receive, send)
        elif refused := refusal(self._access, method, path, asked.headers):
            await _refuse(refused, scope, receive, send)
        elif not length.isdecimal() or int(length[:20]) > most:
            await _refuse(_too_large(most), scope, receive, send)
        else:
            await self._bounded(scope, receive, send, most)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Hand the request on, and stop it when its body goes past the bound or does not go on."""
        received, started, refused, whole = 0, False, False, False

        async def counted() -> Message:
            nonlocal received, whole
            # Once the body is there, whoever waits for more waits for the client to go away.
            try:
                message = await (receive() if whole else asyncio.wait_for(receive(), PATIENCE))
            except TimeoutError:
                raise ClientDisconnect from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > most:
                raise TooLargeError
            return message

        async def answer(message: Message) -> None:
            nonlocal started, refused
            if received > most and not started:
                refused = True  # whatever else was made of a body that broke off
            started = True
            if not refused:
                await send(message)

        try:
            await self._app(scope, counted, answer)
        except TooLargeError:
            refused = refused or not started
        if refused:
            await _refuse(_too_large(most), scope, receive, send)

    def _opens(self, token: str) -> bool:
        """Whether it is the token that is asked for."""
        own = self._access.token
        return own is not None and hmac.compare_digest(token.encode(), own.encode())

    async def _welcome(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page, with a cookie for who opened it with the right token in its address."""
        page = RedirectResponse("/", 303)
        page.set_cookie(
            COOKIE, self._access.cookie, httponly=True, samesite="strict",
            secure=self._access.secure,
        )  # fmt: skip
        await page(scope, receive, send)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the request is larger than {most:,} bytes, which is the limit")


async def _refuse(refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Connection": "close"}  # what is left of the body is not read
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    answer = JSONResponse({"error": refused.sentence}, refused.status, headers)
    await answer(scope, receive, send)


def _headers(path: str) -> dict[str, str]:
    return _HEADERS | ({"Cache-Control": "no-store"} if path.startswith(API) else {})


def _printable(text: str) -> str:
    """Text of a request as one word of a log line."""
    return text[:300].encode("unicode_escape").decode("ascii").replace(" ", "\\x20")
