"""Cameras on the network for tests: MJPEG over HTTP, and JPEG by RTSP (RFC 2326, 2435).

Each makes a frame when it sends it, and can be switched off and on again at the same address.
"""

from __future__ import annotations

import base64
import contextlib
import io
import re
import socketserver
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

RGB = npt.NDArray[np.uint8]

NAME = "line"
FRAME_SECONDS = 0.02


def jpeg(pixels: RGB) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


class NetworkCamera(ABC):
    """A stream of frames.

    Args:
        frame: makes the pixels of the frame of a number.
        password: that is asked for, with the name NAME; None: none is.

    Attributes:
        sent: how many frames were sent.
    """

    def __init__(self, frame: Callable[[int], RGB], password: str | None = None) -> None:
        self._frame, self._password = frame, password
        self.port = 0
        self.sent = 0
        self.switch_on()

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, without name and password."""

    @abstractmethod
    def _talk(self, lines: Any, out: Any) -> None:
        """Answer a client until it goes, or the camera is switched off."""

    def switch_on(self) -> None:
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    camera._talk(self.rfile, self.wfile)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self._off = threading.Event()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def switch_off(self) -> None:
        self._off.set()
        self._server.shutdown()
        self._server.server_close()

    def _send(self, write: Callable[[bytes], None]) -> None:
        while not self._off.wait(FRAME_SECONDS):
            self.sent += 1
            write(jpeg(self._frame(self.sent - 1)))

    def _lets_in(self, head: str) -> bool:
        if self._password is None:
            return True
        right = base64.b64encode(f"{NAME}:{self._password}".encode()).decode()
        return f"Authorization: Basic {right}" in head


def head_of(lines: Any) -> str:
    """The head of a request; "" where the client has gone."""
    head = b""
    while line := lines.readline():
        head += line
        if line == b"\r\n":
            return head.decode()
    return ""


class MjpegCamera(NetworkCamera):
    """Over HTTP."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.mjpg"

    def _talk(self, lines: Any, out: Any) -> None:
        if not self._lets_in(head_of(lines)):
            realm = b'WWW-Authenticate: Basic realm="camera"\r\nContent-Length: 0\r\n\r\n'
            out.write(b"HTTP/1.1 401 Unauthorized\r\n" + realm)
            return
        kind = b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
        out.write(b"HTTP/1.0 200 OK\r\n" + kind)

        def write(frame: bytes) -> None:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            out.write(head.encode() + frame + b"\r\n")

        self._send(write)


class RtspCamera(NetworkCamera):
    """By RTSP, RTP in the same connection; sides are multiples of 8, up to 2040."""

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/live"

    def _talk(self, lines: Any, out: Any) -> None:
        while head := head_of(lines):
            method, url = head.split()[:2]
            [number] = re.findall(r"CSeq: *(\d+)", head)
            status, extra, body = "200 OK", "Session: 1\r\n", ""
            if method == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif not self._lets_in(head):
                status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
            elif method == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                body += "m=video 0 RTP/AVP 26\r\na=control:video\r\n"
                extra = f"Content-Base: {url}/\r\nContent-Type: application/sdp\r\n"
                extra += f"Content-Length: {len(body)}\r\n"
            elif method == "SETUP":
                extra += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            out.write(f"RTSP/1.0 {status}\r\nCSeq: {number}\r\n{extra}\r\n{body}".encode())
            if method == "PLAY":
                self._number = 0
                self._send(lambda frame: self._send_jpeg(frame, out))
                return

    def _send_jpeg(self, frame: bytes, out: Any) -> None:
        """A JPEG file as RTP packets: its tables, and its scan in pieces."""
        image = Image.open(io.BytesIO(frame))
        tables = b"".join(
            frame[at + 5 : at + 69] for at in (m.start() for m in re.finditer(b"\xff\xdb", frame))
        )
        scan_at = frame.index(b"\xff\xda")
        scan = frame[scan_at + 2 + int.from_bytes(frame[scan_at + 2 : scan_at + 4], "big") : -2]
        for at in range(0, len(scan), 1_200):
            piece = scan[at : at + 1_200]
            last = at + len(piece) == len(scan)
            time = int(self.sent * FRAME_SECONDS * 90_000)
            rtp = struct.pack(">BBHII", 0x80, 26 | last << 7, self._number & 0xFFFF, time, 7)
            sides = (image.width // 8, image.height // 8)
            head = struct.pack(">I", at) + bytes([1, 255, *sides])  # 4:2:0, tables follow
            if at == 0:
                head += struct.pack(">BBH", 0, 0, len(tables)) + tables
            packet = rtp + head + piece
            out.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
            self._number += 1
