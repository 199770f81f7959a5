"""An OPC UA server with the newest verdict of each product; clients may read and subscribe.

Objects/ReConPatch/Ready, Reasons, Heartbeat      of the station
Objects/ReConPatch/PRODUCT/Id                     number of the record; written last, after all
                                                  the others, so that who waits for it has them
                   /Verdict, Score, Threshold, PValue, Name, Version, Time
                   /Inspected, Anomalous, Failed  counters since the service started
                   /Message                       the whole message as JSON
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole

from reconpatch.errors import LineError
from reconpatch.station.outputs.message import Message
from reconpatch.station.outputs.settings import OpcUaSettings

NAMESPACE = "urn:reconpatch"
_LONG, _DOUBLE, _TEXT = ua.VariantType.Int64, ua.VariantType.Double, ua.VariantType.String
_TIME, _BOOL = ua.VariantType.DateTime, ua.VariantType.Boolean
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

_OF_STATION = {
    "Ready": (False, _BOOL), "Reasons": ("", _TEXT), "Heartbeat": (0, _LONG),
}  # fmt: skip
_OF_PRODUCT = {
    "Verdict": ("none", _TEXT), "Score": (0.0, _DOUBLE), "Threshold": (0.0, _DOUBLE),
    "PValue": (0.0, _DOUBLE), "Name": ("", _TEXT), "Version": (0, _LONG),
    "Time": (_BEGINNING, _TIME), "Inspected": (0, _LONG), "Anomalous": (0, _LONG),
    "Failed": (0, _LONG), "Message": ("", _TEXT), "Id": (0, _LONG),
}  # fmt: skip

Answer = TypeVar("Answer")


class _Readers:
    """Lets everybody in who may connect, and nobody change anything."""

    def get_user(self, *_: Any, **__: Any) -> User:
        """A user who may read."""
        return User(role=UserRole.User)


class OpcUa:
    """A server that runs in a thread of its own.

    Raises:
        LineError: it cannot listen.
    """

    keeps, fresh = False, None

    def __init__(self, settings: OpcUaSettings, station: str) -> None:
        self._settings, self._station = settings, station
        self._timeout = settings.timeout
        self._nodes: dict[str, dict[str, Any]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua")
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException as error:
            self._end()
            if isinstance(error, (OSError, ua.UaError)):
                raise LineError(
                    f"the OPC UA server cannot listen on {settings.endpoint} ({error}): give "
                    "another endpoint"
                ) from error
            raise

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        answer = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return answer.result(self._timeout)
        except TimeoutError as error:
            answer.cancel()
            raise LineError("the OPC UA server does not answer: check the log") from error

    async def _open(self) -> None:
        settings = self._settings
        self._server = server = Server(user_manager=_Readers())
        await server.init()
        server.set_endpoint(settings.endpoint)
        server.set_server_name(f"ReConPatch {self._station}")
        policies = [ua.SecurityPolicyType.NoSecurity]
        if settings.certificate is not None:
            assert settings.key is not None
            await server.load_certificate(str(settings.certificate))
            await server.load_private_key(str(settings.key))
            policies = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
        server.set_security_policy(policies)
        self._space = await server.register_namespace(NAMESPACE)
        objects = server.nodes.objects
        self._object = await objects.add_object(self._name(), self._browse("ReConPatch"))
        self._nodes[""] = await self._made(self._object, "", _OF_STATION)
        await server.start()

    def _name(self, *parts: str) -> ua.NodeId:
        return ua.NodeId("/".join(("ReConPatch", *filter(None, parts))), self._space)

    def _browse(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self._space)

    async def _made(
        self, parent: Any, product: str, variables: dict[str, tuple[Any, ua.VariantType]]
    ) -> dict[str, Any]:
        return {
            name: await parent.add_variable(
                self._name(product, name), self._browse(name), value, kind
            )
            for name, (value, kind) in variables.items()
        }

    def send(self, message: Message) -> None:
        """Show it."""
        self._run(self._show(message))

    async def _show(self, message: Message) -> None:
        if message.product is None:
            values = message.values
            for product in values["products"]:
                await self._of(product)
            told = {"Ready": values["ready"], "Reasons": "; ".join(values["reasons"])}
            if message.event != "not_ready":
                beats = self._counts.setdefault("", {"Heartbeat": 0})
                beats["Heartbeat"] += 1
                told |= beats
            await self._write(self._nodes[""], told, _OF_STATION)
            return
        nodes = await self._of(message.product)
        values, counts = message.values, self._counts[message.product]
        counts["Inspected"] += message.event == "verdict"
        counts["Anomalous"] += message.verdict == "anomalous"
        counts["Failed"] += message.event == "failure"
        told = {
            "Verdict": message.verdict, "Name": values["name"], "Time": message.time,
            "Message": message.body.decode(), **counts,
        }  # fmt: skip
        if message.event == "verdict":
            told |= {
                "Score": values["score"], "Threshold": values["threshold"],
                "PValue": values["p_value"], "Version": values["version"], "Id": values["id"],
            }  # fmt: skip
        await self._write(nodes, told, _OF_PRODUCT)

    async def _of(self, product: str) -> dict[str, Any]:
        if product not in self._nodes:
            parent = await self._object.add_object(self._name(product), self._browse(product))
            self._nodes[product] = await self._made(parent, product, _OF_PRODUCT)
            self._counts[product] = dict.fromkeys(("Inspected", "Anomalous", "Failed"), 0)
        return self._nodes[product]

    async def _write(
        self,
        nodes: dict[str, Any],
        told: dict[str, Any],
        kinds: dict[str, tuple[Any, ua.VariantType]],
    ) -> None:
        for name, (_, kind) in kinds.items():  # in the order in which they are to be seen
            if name in told:
                value = ua.DataValue(ua.Variant(told[name], kind))
                await self._server.write_attribute_value(nodes[name].nodeid, value)

    def idle(self) -> float | None:
        """Nothing is due."""
        return None

    def close(self) -> None:
        """Listen no more."""
        try:
            self._run(self._server.stop())
        except Exception:
            logging.getLogger("reconpatch.outputs").exception("an OPC UA server did not stop")
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
