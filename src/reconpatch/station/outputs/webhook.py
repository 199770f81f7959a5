"""Messages by HTTP POST, signed as Standard Webhooks say (standardwebhooks.com).

    webhook-id          names the message; one that is sent again has the same
    webhook-timestamp   seconds of the Unix clock when it was sent
    webhook-signature   v1,BASE64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY" with the secret's bytes

Any answer of 200 to 299 takes the message. 400, 405, 406, 409, 410, 413, 415 and 422 refuse it;
everything else, a redirect too, is tried again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import time

import httpx

from reconpatch.errors import LineError, RefusedError
from reconpatch.station.outputs.message import Message
from reconpatch.station.outputs.settings import WebhookSettings, read_secret

_REFUSED = frozenset({400, 405, 406, 409, 410, 413, 415, 422})


def signature(secret: str, key: str, seconds: int, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = f"{key}.{seconds}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


class Webhook:
    """A receiver that is sent each message; a connection stays open."""

    keeps, fresh = True, None

    def __init__(self, settings: WebhookSettings, station: str) -> None:
        self._url = settings.url
        file = settings.secret_file
        self._secret = None if file is None else read_secret(file)
        verify: ssl.SSLContext | bool = True
        if settings.ca_file is not None:
            try:
                verify = ssl.create_default_context(cafile=str(settings.ca_file))
            except OSError as error:
                raise LineError(f"{settings.ca_file} holds no certificates: check it") from error
        headers = {"User-Agent": f"reconpatch ({station})", **settings.headers}
        # A proxy of the environment is meant for others.
        self._client = httpx.Client(
            timeout=settings.timeout, verify=verify, headers=headers, trust_env=False
        )

    def send(self, message: Message) -> None:
        """POST it."""
        seconds = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message.key,
            "webhook-timestamp": str(seconds),
        }
        if self._secret is not None:
            signed = signature(self._secret, message.key, seconds, message.body)
            headers["webhook-signature"] = signed
        try:
            answer = self._client.post(self._url, content=message.body, headers=headers)
        except httpx.HTTPError as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise LineError(f"the receiver does not answer ({why}): check that it runs") from error
        if answer.is_success:
            return
        said = f"the receiver answered {answer.status_code} ({answer.text[:200].strip()!r})"
        if answer.status_code in _REFUSED:
            raise RefusedError(f"{said}: look at its log, and send the message again")
        raise LineError(f"{said}: check its address and log")

    def idle(self) -> float | None:
        """Nothing is due."""
        return None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
