"""The routes of people: who asks, users and tokens, and the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from reconpatch.errors import NotFoundError
from reconpatch.station.audit import Entry
from reconpatch.station.guard import API
from reconpatch.station.people import People, Token, User
from reconpatch.station.permissions import SCOPES, Person, Role, Scope
from reconpatch.station.routes import PROBLEMS, Here, Limit, Service, Who
from reconpatch.station.schemas import RecordId

router = APIRouter(prefix=API, responses=PROBLEMS)

_Password = Annotated[str, Field(max_length=1_000)]


class MeOut(BaseModel):
    """Who asks."""

    users: bool = Field(description="Whether the station has users at all.")
    name: str | None
    role: Role | None = Field(description="Null for a program, and where there are no users.")
    scopes: list[Scope]


class PasswordIn(BaseModel):
    """Another password for oneself."""

    model_config = ConfigDict(extra="forbid")

    old: _Password
    new: _Password


class UserIn(BaseModel):
    """What is to be so of a user; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    password: _Password | None = None
    disabled: bool | None = None


class UsersOut(BaseModel):
    """All users, by name."""

    users: list[User]


class TokenIn(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80)]
    scopes: list[Scope]
    days: Annotated[float, Field(gt=0, lt=36_500)] | None = None


class TokenMade(BaseModel):
    """A new token."""

    token: Token
    secret: str = Field(description="What the program sends; it is told this once.")


class TokensOut(BaseModel):
    """All tokens, oldest first."""

    tokens: list[Token]


class AuditOut(BaseModel):
    """Entries of the audit trail, newest first."""

    entries: list[Entry]
    cursor: int | None = Field(description="Give it as `cursor` for the next; null: the last.")


def _people(here: Service) -> People:
    if here.people is None:
        raise NotFoundError("this service has no users: start it with --users")
    return here.people


@router.get("/me")
def me(request: Request) -> MeOut:
    """Who asks, and what they may do."""
    person: Person | None = request.scope.get("person")
    if person is None:
        return MeOut(users=False, name=None, role=None, scopes=list(SCOPES))
    scopes = [scope for scope in SCOPES if scope in person.scopes]
    return MeOut(users=True, name=person.name, role=person.role, scopes=scopes)


@router.put("/me/password", status_code=204, response_model=None)
def change_password(given: PasswordIn, here: Here, request: Request) -> None:
    """Give oneself another password; all of one's sessions end."""
    person: Person | None = request.scope.get("person")
    if person is None or person.role is None:
        raise NotFoundError("only users have passwords: give a name and a password at login")
    _people(here).change_password(person.name, given.old, given.new)


@router.get("/users")
def users(here: Here) -> UsersOut:
    """All users."""
    return UsersOut(users=_people(here).users())


@router.put("/users/{name}")
def set_user(
    name: Annotated[str, InPath(max_length=80)], given: UserIn, here: Here, asked: Who
) -> User:
    """Add a user, or change one; their sessions end."""
    return _people(here).set_user(name, **given.model_dump(), by=asked.by)


@router.get("/tokens")
def tokens(here: Here) -> TokensOut:
    """All tokens of programs."""
    return TokensOut(tokens=_people(here).tokens())


@router.post("/tokens")
def make_token(given: TokenIn, here: Here, asked: Who) -> TokenMade:
    """Make a token for a program."""
    made, secret = _people(here).make_token(given.name, given.scopes, days=given.days, by=asked.by)
    return TokenMade(token=made, secret=secret)


@router.delete("/tokens/{number}", status_code=204, response_model=None)
def revoke(number: Annotated[RecordId, InPath()], here: Here, asked: Who) -> None:
    """Take a token back, for good."""
    _people(here).revoke(number, by=asked.by)


@router.get("/audit")
def audit(
    here: Here, limit: Limit = 100, cursor: Annotated[RecordId | None, Query()] = None
) -> AuditOut:
    """Who did what, newest first."""
    entries = here.station.records.audit.page(limit=limit, before=cursor)
    more = len(entries) == limit and entries[-1].number > 1
    return AuditOut(entries=entries, cursor=entries[-1].number if more else None)


@router.get("/audit.jsonl", response_class=StreamingResponse)
def export(here: Here) -> StreamingResponse:
    """The whole trail, a line of JSON for each entry, oldest first, for `reconpatch audit`."""
    headers = {"Content-Disposition": 'attachment; filename="audit.jsonl"'}

    def lines() -> Iterator[str]:
        for line in here.station.records.audit.export():
            yield f"{line}\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)
