"""A bound on connections, so that those which say nothing leave room for those which do.

A connection costs a descriptor of the process from the moment it is accepted, long before the first
request is whole. So the listening socket counts them itself, and where there are too many it ends
the one that has waited longest without a request at work; a whole head has to come in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("reconpatch.access")

MOST = 512
"""Connections at once, unless the process may have fewer files open."""
HEAD_SECONDS = 15.0
"""Seconds within which the head of a request has to be whole."""

# Descriptors that are left for records, photos and models.
_OTHERS = 256
_LOG_SECONDS = 60.0


def most_connections() -> int:
    """How many connections there may be, well below what the process may have open."""
    try:
        import resource
    except ImportError:  # a system without this limit
        return MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(16, min(MOST, soft - _OTHERS))


class BoundedListener(socket.socket):
    """A listening socket that keeps no more than so many connections.

    Attributes:
        most: how many.
        protocols: those whose first bytes may be read, by the client's address and port.
        head_seconds: within which a connection has to begin, TLS included, and within which the
            head of a request has to be whole.
    """

    most: int
    head_seconds: float
    protocols: dict[tuple[Any, ...], BoundedProtocol]

    @classmethod
    def of(cls, listening: socket.socket, most: int) -> BoundedListener:
        """Take over a listening socket."""
        own = cls(listening.family, listening.type, listening.proto, listening.detach())
        own.most, own.protocols, own.head_seconds = most, {}, HEAD_SECONDS
        own._accepted, own._closed_early, own._told = {}, 0, -_LOG_SECONDS
        return own

    _accepted: dict[tuple[Any, ...], socket.socket]
    _closed_early: int
    _told: float

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; where there are too many, one that is idle is ended for it."""
        connection, address = super().accept()
        open_ones = self._accepted.items()
        self._accepted = {key: one for key, one in open_ones if one.fileno() >= 0}
        if len(self._accepted) >= self.most and not self._end_one():
            connection.close()
            self.note("there were too many at work")
            raise BlockingIOError
        self._accepted[address[:2]] = connection
        loop = asyncio.get_running_loop()
        loop.call_later(self.head_seconds, self._end_unless_begun, address[:2], connection)
        return connection, address

    def _end_unless_begun(self, key: tuple[Any, ...], connection: socket.socket) -> None:
        """End a connection that has no protocol yet: its TLS handshake is not whole."""
        if self._accepted.get(key) is connection and key not in self.protocols:
            with contextlib.suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)
                self.note("no whole TLS handshake came in time")

    def _end_one(self) -> bool:
        """End the oldest connection without a request at work; whether there was one."""
        for key, one in self._accepted.items():
            protocol = self.protocols.get(key)
            if protocol is None or protocol.is_idle:
                # The event loop closes it when it sees the end.
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    log.debug("a connection had ended by itself")
                del self._accepted[key]
                self.note("others came while they said nothing")
                return True
        return False

    def note(self, why: str) -> None:
        """Count a connection that was ended; one line of the log a minute."""
        self._closed_early += 1
        now = time.monotonic()
        if now - self._told >= _LOG_SECONDS:
            log.warning("%d connections were ended early, the last since %s", self._closed_early,
                        why)  # fmt: skip
            self._closed_early, self._told = 0, now


class BoundedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, with a limit on the wait for the head of a request."""

    listener: BoundedListener
    _deadline: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is at work."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        if self.client is not None:
            self.listener.protocols[self.client] = self
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of it."""
        self._stop()
        if self.client is not None and self.listener.protocols.get(self.client) is self:
            del self.listener.protocols[self.client]
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self.is_idle:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.listener.head_seconds, self._give_up)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.is_idle:
            self.listener.note("no whole request came in time")
            self.transport.abort()


def protocol_for(listener: BoundedListener) -> type[BoundedProtocol]:
    """The protocol of a listening socket's connections."""
    return type("StationProtocol", (BoundedProtocol,), {"listener": listener})
