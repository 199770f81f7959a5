"""The routes of outputs to the line."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import BaseModel

from reconpatch.station.guard import API
from reconpatch.station.outputs.dispatch import OutputState
from reconpatch.station.routes import PROBLEMS, Here

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
def test(name: Name, here: Here) -> SentOut:
    """Send a test; the answer comes once it was taken."""
    return SentOut(seconds=here.outputs.test(name))


@router.post("/{name}/again")
def again(name: Name, here: Here) -> CountOut:
    """Try again at once; messages that were refused are sent once more, behind all others."""
    return CountOut(messages=here.outputs.send_again(name))


@router.delete("/{name}/waiting")
def discard(name: Name, here: Here) -> CountOut:
    """Forget all messages of an output that were not sent, for good."""
    return CountOut(messages=here.outputs.discard(name))
