"""Who may ask the service for what, before any of it is looked at.

A service on 127.0.0.1 can be reached by every page that a browser on the machine has open: by a
form that posts to it, and by a foreign name that its owner points at 127.0.0.1 (DNS rebinding). So
the name in Host has to be one of this machine's, and a browser has to say that the request comes
from the service's own page. Beyond the machine itself, a token is asked for. Behind a reverse proxy
the service is told the address under which the proxy shows it; that name and that origin are its
own, too, and a path before its own is taken off.

Also here: the bound on a request's bytes and on the wait for them, the headers that keep a page
from loading anything from elsewhere, HEAD answered as GET without the body, the page that asks a
person for the token, and one line in the log for each request, without its query or contents.
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
from urllib.parse import parse_qs, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request, cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from reconpatch.errors import AccessError, BusyError, ReconPatchError
from reconpatch.station.login_page import language_of, login_page
from reconpatch.station.permissions import refusal_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from reconpatch.station.people import People

access_log = logging.getLogger("reconpatch.access")

API = "/api/v1"
COOKIE = "reconpatch"
SHORTEST_TOKEN = 16
PATIENCE = 60.0
"""Seconds without a byte of a body after which it is given up: its sender may have lost power."""
LONGEST_BODY = 600.0
"""Seconds after which a body is given up whatever comes of it."""
OPEN_PATHS = frozenset({f"{API}/health", "/style.css", "/icon.svg"})
"""What is answered without a token."""

_LOGIN, _LOGOUT = "/login", "/logout"
_LOGIN_BYTES = 4_096
# Seconds between two looks whether the service is stopping, while a body is waited for.
_LOOK_SECONDS = 0.5

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # under "no-referrer" the login form's Origin is "null"
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        any_host: whatever Host says; for a service with a token only. Else it has to name this
            machine.
        token: asked for where it is given.
        secure: the page is reached by TLS only, and so is the cookie.
        origin: scheme and name under which a reverse proxy shows the page; None where there is
            no proxy.
        prefix: path under which it does, such as "/line3"; "" for none.
        cookie_name: of its own for each station of a machine, for ports do not part cookies.
        people: users and tokens, of whom one is asked for instead of the one token; None: there
            are none, and whoever may ask may do everything.
        language: of the page that asks; None: the browser's.
    """

    any_host: bool = False
    token: str | None = None
    secure: bool = False
    origin: str | None = None
    prefix: str = ""
    cookie_name: str = COOKIE
    people: People | None = None
    language: str | None = None

    @property
    def asks(self) -> bool:
        """Whether anybody has to say who they are."""
        return self.token is not None or self.people is not None

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
    if not (access.any_host or is_loopback(_name(host)) or _is_proxied(access, host)):
        return Refusal(421, "the service is not known by this name: call it by 127.0.0.1")
    if _from_elsewhere(method, headers, host, access.origin):
        return Refusal(403, "the request comes from another site's page: use the service's own")
    open_ = path in OPEN_PATHS or path == _LOGIN
    if access.token is not None and not open_ and not _has_token(access, headers):
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


def _is_proxied(access: Access, host: str) -> bool:
    """Whether Host is the name under which a reverse proxy shows the page."""
    return access.origin is not None and host.lower() == urlsplit(access.origin).netloc


def _from_elsewhere(method: str, headers: Mapping[str, str], host: str, own: str | None) -> bool:
    """Whether a browser says that another site's page asks; programs say nothing."""
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        # Following a link to the page is no harm; what it then asks for is same-origin.
        return not (method == "GET" and headers.get("sec-fetch-mode") == "navigate")
    origin = headers.get("origin")
    if origin is None or method in _SAFE or origin.lower() == own:
        return False
    if own is not None and host.lower() == urlsplit(own).netloc:
        return True  # of the proxy's name, but by another scheme
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


def _sent_secret(access: Access, headers: Mapping[str, str]) -> str:
    """The token of a program, or what a browser's cookie holds; "" where there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    return cookie_parser(headers.get("cookie", "")).get(access.cookie_name, "")


def _has_token(access: Access, headers: Mapping[str, str]) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and access.token is not None:
        return hmac.compare_digest(given.strip().encode(), access.token.encode())
    cookie = cookie_parser(headers.get("cookie", "")).get(access.cookie_name, "")
    return hmac.compare_digest(cookie.encode(), access.cookie.encode())


class TooLargeError(Exception):
    """A request's body goes past its bound, or past what there is room for."""


class Guard:
    """ASGI middleware around all of the service.

    Args:
        app: what it guards.
        access: who may ask.
        most_bytes: the bound of a request's body, by its path.
        count: told method, route and status of each request.
        lost: told of an upload that was refused for its size before it was read.
        held_bytes: bytes of all bodies together, of requests that are not answered yet; one alone
            may have more.
        stopping: whether the service stops, and waits for no more bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        most_bytes: Callable[[str], int],
        count: Callable[[str, str, int], None],
        lost: Callable[[Request, str], None],
        held_bytes: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._app = app
        self._access = access
        self._most_bytes = most_bytes
        self._count = count
        self._lost = lost
        self._held_bytes = held_bytes
        self._stopping = stopping
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._logged(self._without_prefix(scope), receive, send)

    def _without_prefix(self, scope: Scope) -> Scope:
        """The same request without the path that a reverse proxy puts before it, if it does."""
        prefix, path = self._access.prefix, scope["path"]
        if not prefix or not (path == prefix or path.startswith(f"{prefix}/")):
            return scope
        return {**scope, "path": path.removeprefix(prefix), "root_path": ""}

    async def _logged(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                # The page is asked for anew, or who has logged out would see it from memory.
                kept = "no-store" if scope["path"].startswith(API) else "no-cache"
                headers.setdefault("Cache-Control", kept)
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
        if path == "":  # the prefix alone, from which relative addresses would lead astray
            await RedirectResponse(f"{self._access.prefix}/", 308)(scope, receive, send)
        elif (method, path) == ("GET", "/") and self._opens(asked.query_params.get("token", "")):
            await self._welcome("/")(scope, receive, send)
        elif refused := await self._refusal(scope, asked.headers):
            if refused.status == 401 and _is_browser(method, asked.headers):
                page = self._login_page(asked.headers, _address(scope))
                await page(scope, receive, send)
            else:
                await _refuse(refused, scope, receive, send)
        elif not length.isdecimal() or int(length[:20]) > most:
            refused = _too_large(most)
            self._lost(Request(scope), refused.sentence)
            await _refuse(refused, scope, receive, send)
        elif method == "POST" and path in (_LOGIN, _LOGOUT) and self._access.asks:
            await self._bounded(self._log_in_or_out, scope, receive, send, _LOGIN_BYTES)
        elif method == "HEAD" and path.startswith(API):
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
        else:
            await self._bounded(self._app, scope, receive, send, most)

    async def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is refused; else `scope` has the person who asks, if there are people."""
        access, method, path = self._access, scope["method"], scope["path"]
        refused = refusal(access, method, path, headers)
        if refused is not None or access.people is None or path in (*OPEN_PATHS, _LOGIN, _LOGOUT):
            return refused
        secret = _sent_secret(access, headers)
        remembered, person = access.people.known(secret)
        if secret and not remembered:
            try:
                person = await run_in_threadpool(access.people.who, secret)
            except ReconPatchError as error:
                return Refusal(503, f"who asks cannot be found out ({error}): ask again soon")
        if person is None:
            return Refusal(
                401, "a name is needed: log in, or send 'Authorization: Bearer TOKEN' as a program"
            )
        scope["person"] = person
        if path.startswith(f"{API}/"):
            said = refusal_of(person, method, path.removeprefix(f"{API}/"))
            return None if said is None else Refusal(403, said)
        return None

    async def _bounded(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, most: int
    ) -> None:
        """Hand the request on, and stop it when its body goes past a bound or does not go on."""
        received, started, whole = 0, False, False
        refused: Refusal | None = None
        began = time.monotonic()

        async def counted() -> Message:
            nonlocal received, whole, refused
            # Once the body is there, whoever waits for more waits for the client to go away.
            message = await (receive() if whole else self._next(receive, began))
            size = len(message.get("body", b""))
            received += size
            self._held += size
            whole = not message.get("more_body", False)
            if received > most:
                refused = _too_large(most)
            elif self._held > self._held_bytes and self._held > received:
                refused = Refusal(503, "too many uploads are under way: send this one again soon")
            if refused is not None:
                raise TooLargeError
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if refused is None or started:  # else it was made of a body that broke off
                started = True
                await send(message)

        try:
            await app(scope, counted, answer)
        except TooLargeError:
            pass
        finally:
            self._held -= received
        if refused is not None and not started:
            await _refuse(refused, scope, receive, send)

    async def _next(self, receive: Receive, began: float) -> Message:
        """The next part of a body, unless it does not come."""
        waited = 0.0
        while waited < PATIENCE and time.monotonic() - began < LONGEST_BODY:
            step = min(_LOOK_SECONDS, PATIENCE - waited)
            try:
                return await asyncio.wait_for(receive(), step)
            except TimeoutError:
                waited += step
            if self._stopping():
                break
        raise ClientDisconnect

    # --- The token -----------------------------------------------------------------------------

    def _opens(self, token: str) -> bool:
        """Whether it is the token that is asked for."""
        own = self._access.token
        return own is not None and hmac.compare_digest(token.encode(), own.encode())

    def _welcome(self, address: str, secret: str | None = None) -> Response:
        """The way to a page of the service, with a cookie for who may see it."""
        access = self._access
        page = RedirectResponse(access.prefix + address, 303)
        page.set_cookie(
            access.cookie_name, secret or access.cookie, path=f"{access.prefix}/", httponly=True,
            samesite="lax", secure=access.secure,
        )  # fmt: skip
        return page

    async def _log_in_or_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A cookie for what a form says, or the form again; or the cookie taken away."""
        access, request = self._access, Request(scope, receive)
        given = parse_qs((await request.body()).decode("latin-1"))
        token, address = (given.get(name, [""])[0] for name in ("token", "next"))
        if not address.startswith("/") or address.startswith(("//", "/\\")):
            address = "/"  # another site's
        if scope["path"] == _LOGOUT:
            if access.people is not None:
                secret = _sent_secret(access, request.headers)
                await run_in_threadpool(access.people.log_out, secret)
            answer: Response = RedirectResponse(f"{access.prefix}/", 303)
            answer.delete_cookie(access.cookie_name, path=f"{access.prefix}/")
        elif access.people is not None:
            answer = await self._named(access.people, given, request.headers, address)
        elif self._opens(token):
            answer = self._welcome(address)
        else:
            answer = self._login_page(request.headers, address, wrong_token=True)
        await answer(scope, receive, send)

    async def _named(
        self,
        people: People,
        given: Mapping[str, list[str]],
        headers: Mapping[str, str],
        address: str,
    ) -> Response:
        """A cookie for the name and the password of a form, or the form again."""
        name, password = (given.get(key, [""])[0] for key in ("name", "password"))
        try:
            secret = await run_in_threadpool(people.log_in, name, password)
        except (AccessError, BusyError) as error:
            said = str(error)
            return self._login_page(headers, address, said=f"{said[0].upper()}{said[1:]}.")
        return self._welcome(address, secret)

    def _login_page(
        self, headers: Mapping[str, str], address: str, *, said: str = "", wrong_token: bool = False
    ) -> Response:
        """The page that asks a person who they are, and goes on to where they wanted."""
        access = self._access
        page = login_page(
            language_of(access.language, headers.get("accept-language", "")),
            prefix=access.prefix,
            address=address,
            names=access.people is not None,
            said=said,
            wrong_token=wrong_token,
        )
        return HTMLResponse(page, 401, {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})


def _address(scope: Scope) -> str:
    """Where a request wanted to go, without a token that was wrong."""
    query = scope.get("query_string", b"").decode("latin-1")
    path = quote(scope["path"])
    return f"{path}?{query}" if query and "token=" not in query else path


def _is_browser(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a person is shown the answer."""
    return method == "GET" and "text/html" in headers.get("accept", "")


def _without_body(send: Send) -> Send:
    """What HEAD is answered with: the headers alone."""

    async def head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return head


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the request is larger than {most:,} bytes, which is the limit")


async def _refuse(refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"Connection": "close"}  # what is left of the body is not read
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refused.status == 503:
        headers["Retry-After"] = "2"
    answer = JSONResponse({"error": refused.sentence}, refused.status, headers)
    await answer(scope, receive, send)


def _printable(text: str) -> str:
    """Text of a request as one word of a log line."""
    return text[:300].encode("unicode_escape").decode("ascii").replace(" ", "\\x20")
