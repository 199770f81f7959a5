"""The routes of outputs to the line."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import BaseModel

from reconpatch.station.guard import API
from reconpatch.station.outputs.dispatch import OutputState
from reconpatch.station.routes import PROBLEMS, Here, Who

Name = Annotated[str, InPath(max_length=40, description="Name of an output.")]

router = APIRouter(prefix=f"{API}/outputs", responses=PROBLEMS)


class OutputsOut(BaseModel):
    """All outputs."""

    outputs: list[OutputState]


class SentOut(BaseModel):
    """A test was taken.

    Attributes:
        seconds: that it took, where the output was at nothing else.
    """

    seconds: float


class CountOut(BaseModel):
    """So many messages.

    Attributes:
        messages: how many.
    """

    messages: int


@router.get("")
def outputs(here: Here) -> OutputsOut:
    """How each output to the line is, and what waits to be sent."""
    return OutputsOut(outputs=here.outputs.states())


@router.post("/{name}/test")
def test(name: Name, here: Here, asked: Who) -> SentOut:
    """Send a test; the answer comes once it was taken."""
    seconds = here.outputs.test(name)
    here.station.records.audit.add("output test", name, who=asked.by)
    return SentOut(seconds=seconds)


@router.post("/{name}/again")
def again(name: Name, here: Here, asked: Who) -> CountOut:
    """Try again at once; messages that were refused are sent once more, behind all others."""
    count = here.outputs.send_again(name)
    here.station.records.audit.add("output again", name, who=asked.by, why=f"{count} messages")
    return CountOut(messages=count)


@router.delete("/{name}/waiting")
def discard(name: Name, here: Here, asked: Who) -> CountOut:
    """Forget all messages of an output that were not sent, for good."""
    count = here.outputs.discard(name)
    here.station.records.audit.add("output forget", name, who=asked.by, why=f"{count} messages")
    return CountOut(messages=count)
