"""Who works with a station: users with roles, their sessions, and tokens of programs.

Passwords are kept as Argon2id hashes, sessions and tokens as SHA-256: who reads the database can
log in as nobody. A name whose password was given wrongly several times has to wait.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from reconpatch.errors import AccessError, BusyError, NotFoundError, SettingsError
from reconpatch.station.audit import Audit
from reconpatch.station.permissions import ROLES, SCOPES, Person, Role, Scope
from reconpatch.station.tables import sessions, tokens, users

SHORTEST_PASSWORD = 12
TOKEN_PREFIX = "rcp_"
"""By which a token is known for one, also where it was left behind by mistake."""

_LONGEST_PASSWORD, _LONGEST_NAME = 1_000, 80
# A session ends so long after it was last used, and after so long in any case.
_IDLE, _LONGEST = timedelta(hours=12), timedelta(days=7)
# Seconds for which it is remembered who somebody is; what another process takes away, such as a
# command, counts after them.
_REMEMBER = 5.0
_SEEN = timedelta(minutes=1)
# So many wrong passwords are free; after each further one a name waits, twice as long each time.
_FREE_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 5, 5.0, 900.0
# Passwords that are looked at at once; each takes 64 MiB.
_AT_ONCE = 2


@dataclass(frozen=True)
class User:
    """A user.

    Attributes:
        name: as they log in.
        role: what they may do.
        created: when, in UTC.
        disabled: since when they may not log in, in UTC, or None.
    """

    name: str
    role: Role
    created: datetime
    disabled: datetime | None


@dataclass(frozen=True)
class Token:
    """A token of a program, without what it is.

    Attributes:
        id: counts up.
        name: what it is for.
        scopes: what it may do.
        created: when, in UTC.
        expires: when it ends, in UTC, or None.
        revoked: when it was taken back, in UTC, or None.
    """

    id: int
    name: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None
    revoked: datetime | None


Transaction = Callable[[], AbstractContextManager[sa.Connection]]


class People:
    """The users and tokens of one station; safe to use from several threads.

    Args:
        station: whose they are.
        reading: a connection to read with.
        changing: a connection in a transaction of its own.
        audit: where all changes go.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        station: str,
        reading: Transaction,
        changing: Transaction,
        audit: Audit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._station, self._reading, self._changing = station, reading, changing
        self._audit, self._clock = audit, clock
        self._hasher = PasswordHasher()
        self._looking = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Person | None, float]] = {}
        self._wrong: dict[str, tuple[int, float]] = {}

    # --- Users ---------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """All users, by name."""
        query = sa.select(users).where(users.c.station == self._station).order_by(users.c.name)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [User(row.name, row.role, row.created, row.disabled) for row in rows]

    def set_user(
        self,
        name: str,
        *,
        role: str | None = None,
        password: str | None = None,
        disabled: bool | None = None,
        by: str | None = None,
    ) -> User:
        """Add a user, or change one; their sessions end.

        Args:
            name: of the user.
            role: see `ROLES`; None leaves it. A new user needs one, and a password.
            password: None leaves it.
            disabled: whether they may not log in; None leaves it.
            by: who asks for it.

        Raises:
            SettingsError: something is missing or not allowed, or nobody would be admin any more.
        """
        name = _checked_name(name)
        if role is not None and role not in ROLES:
            raise SettingsError(f"the role is {role!r}: give {_either(list(ROLES))}")
        hashed = None if password is None else self._hasher.hash(_checked_password(password))
        now = datetime.now(UTC)
        with self._changing() as connection:
            old = self._row(connection, name)
            if old is None and (role is None or hashed is None):
                raise SettingsError(f"there is no user {name!r} yet: give a role and a password")
            row: dict[str, Any] = {
                "station": self._station, "name": name, "role": role, "password": hashed,
                "created": now, "disabled": now if disabled else None,
            } if old is None else old._asdict()  # fmt: skip
            if old is not None:
                row["role"] = role or old.role
                row["password"] = hashed or old.password
                if disabled is not None:
                    row["disabled"] = (old.disabled or now) if disabled else None
                connection.execute(sa.delete(users).where(self._is(name)))
            connection.execute(sa.insert(users).values(row))
            if old is not None and self._was_last_admin(connection, old):
                raise SettingsError(
                    f"{name} is the only admin, and somebody has to be: make another user admin "
                    "first"
                )
            connection.execute(sa.delete(sessions).where(self._sessions_of(name)))
            before = None if old is None else _said(old.role, old.disabled)
            self._audit.add(
                "user", name, who=by, before=before, after=_said(row["role"], row["disabled"]),
                why="a new password" if hashed and old is not None else "", within=connection,
            )  # fmt: skip
        self._forget()
        return User(name, row["role"], row["created"], row["disabled"])

    def has_admin(self) -> bool:
        """Whether anybody may let others in."""
        return any(one.role == "admin" and one.disabled is None for one in self.users())

    def _was_last_admin(self, connection: sa.Connection, old: sa.Row[Any]) -> bool:
        if old.role != "admin" or old.disabled is not None:
            return False
        left = sa.select(users.c.name).where(
            users.c.station == self._station, users.c.role == "admin", users.c.disabled.is_(None)
        )
        return connection.execute(left.limit(1)).first() is None

    def _row(self, connection: sa.Connection, name: str) -> sa.Row[Any] | None:
        return connection.execute(sa.select(users).where(self._is(name))).one_or_none()

    def _is(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(users.c.station == self._station, users.c.name == name)

    def _sessions_of(self, name: str) -> sa.ColumnElement[bool]:
        return sa.and_(sessions.c.station == self._station, sessions.c.user == name)

    # --- Sessions ------------------------------------------------------------------------------

    def log_in(self, name: str, password: str) -> str:
        """Begin a session; what the browser is to send from now on.

        Raises:
            AccessError: there is no such user, or the password is not theirs.
            BusyError: it was wrong too often, or too many log in at once.
        """
        name = unicodedata.normalize("NFKC", name.strip())[:_LONGEST_NAME]
        self._check_wait(name)
        with self._reading() as connection:
            row = self._row(connection, name)
        # A name that there is not takes as long as a wrong password.
        known = row is not None and row.disabled is None
        right = self._is_right(row.password if row is not None else _nobody(), password)
        if not known or not right:
            self._was_wrong(name)
            if row is not None:  # names that are made up must not fill the trail
                self._audit.add("login refused", name)
            raise AccessError("the name or the password is wrong: check both")
        with self._lock:
            self._wrong.pop(name, None)
        secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
        started = {
            "sha256": _sha256(secret), "station": self._station, "user": name, "created": now,
            "seen": now,
        }  # fmt: skip
        with self._changing() as connection:
            old = sa.or_(sessions.c.seen < now - _IDLE, sessions.c.created < now - _LONGEST)
            connection.execute(sa.delete(sessions).where(sessions.c.station == self._station, old))
            connection.execute(sa.insert(sessions).values(started))
            self._audit.add("login", name, who=name, within=connection)
        return secret

    def log_out(self, secret: str) -> None:
        """End a session; of one that has ended nothing is said."""
        this = sa.and_(sessions.c.station == self._station, sessions.c.sha256 == _sha256(secret))
        with self._changing() as connection:
            name = connection.execute(sa.select(sessions.c.user).where(this)).scalar_one_or_none()
            if name is not None:
                connection.execute(sa.delete(sessions).where(this))
                self._audit.add("logout", name, who=name, within=connection)
        self._forget()

    def change_password(self, name: str, old: str, new: str) -> None:
        """Give oneself another password; all sessions end.

        Raises:
            AccessError: the old one is wrong.
            SettingsError: the new one is too short.
        """
        self._check_wait(name)
        with self._reading() as connection:
            row = self._row(connection, name)
        if row is None or not self._is_right(row.password, old):
            self._was_wrong(name)
            raise AccessError("the old password is wrong: check it")
        self.set_user(name, password=new, by=name)

    def _is_right(self, hashed: str, password: str) -> bool:
        if not self._looking.acquire(timeout=10):
            raise BusyError(_AT_ONCE, 5, "passwords are being looked at: log in")
        try:
            return self._hasher.verify(hashed, _normal(password[:_LONGEST_PASSWORD]))
        except VerificationError:
            return False
        finally:
            self._looking.release()

    def _check_wait(self, name: str) -> None:
        with self._lock:
            _, until = self._wrong.get(name, (0, 0.0))
        if (left := until - self._clock()) > 0:
            raise BusyError(_FREE_TRIES, int(left) + 1, "passwords and more were wrong: log in")

    def _was_wrong(self, name: str) -> None:
        with self._lock:
            count = self._wrong.get(name, (0, 0.0))[0] + 1
            over = count - _FREE_TRIES
            wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(over, 10)) if over >= 0 else 0.0
            if len(self._wrong) > 10_000:  # names that somebody makes up
                self._wrong.clear()
            self._wrong[name] = count, self._clock() + wait

    # --- Tokens --------------------------------------------------------------------------------

    def make_token(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        days: float | None = None,
        by: str | None = None,
    ) -> tuple[Token, str]:
        """Make a token for a program; it is told once, and kept as a hash alone.

        Args:
            name: what it is for.
            scopes: see `SCOPES`.
            days: until it ends; None: never.
            by: who asks for it.

        Raises:
            SettingsError: a scope is unknown, or none is given.
        """
        name = _checked_name(name)
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            given = unknown[0] if unknown else "none"
            raise SettingsError(f"the scope is {given!r}: give {_either(list(SCOPES))}")
        if days is not None and not 0 < days < 36_500:
            raise SettingsError(f"the token lasts {days:g} days: give more than 0, up to 36,500")
        kept = [scope for scope in SCOPES if scope in scopes]
        secret, now = TOKEN_PREFIX + secrets.token_urlsafe(32), datetime.now(UTC)
        ends = None if days is None else now + timedelta(days=days)
        row = {
            "station": self._station, "sha256": _sha256(secret), "name": name, "scopes": kept,
            "created": now, "expires": ends, "revoked": None,
        }  # fmt: skip
        with self._changing() as connection:
            added = sa.insert(tokens).values(row).returning(tokens.c.id)
            number = int(connection.execute(added).scalar_one())
            self._audit.add(
                "token", f"token {number}", who=by, after={"name": name, "scopes": kept},
                within=connection,
            )  # fmt: skip
        return Token(number, name, tuple(kept), now, ends, None), secret

    def tokens(self) -> list[Token]:
        """All tokens, oldest first."""
        query = sa.select(tokens).where(tokens.c.station == self._station).order_by(tokens.c.id)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            Token(row.id, row.name, tuple(row.scopes), row.created, row.expires, row.revoked)
            for row in rows
        ]

    def revoke(self, number: int, *, by: str | None = None) -> None:
        """Take a token back, for good.

        Raises:
            NotFoundError: there is no such token, or it was taken back before.
        """
        this = sa.and_(
            tokens.c.station == self._station, tokens.c.id == number, tokens.c.revoked.is_(None)
        )
        with self._changing() as connection:
            gone = sa.update(tokens).where(this).values(revoked=datetime.now(UTC))
            if not connection.execute(gone).rowcount:
                raise NotFoundError(
                    f"there is no token {number} to take back: give one that is listed"
                )
            self._audit.add("token revoked", f"token {number}", who=by, within=connection)
        self._forget()

    # --- Who somebody is -----------------------------------------------------------------------

    def known(self, secret: str) -> tuple[bool, Person | None]:
        """Whether it is remembered who sends this, and who it is; never waits for the database."""
        with self._lock:
            person, until = self._known.get(_sha256(secret), (None, 0.0))
        return until > self._clock(), person

    def who(self, secret: str) -> Person | None:
        """Who sends this token or session's secret; None: nobody who may."""
        remembered, person = self.known(secret)
        if remembered:
            return person
        sha256 = _sha256(secret)
        is_token = secret.startswith(TOKEN_PREFIX)
        person = self._of_token(sha256) if is_token else self._of_session(sha256)
        with self._lock:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[sha256] = person, self._clock() + _REMEMBER
        return person

    def _of_token(self, sha256: str) -> Person | None:
        this = sa.select(tokens).where(
            tokens.c.station == self._station, tokens.c.sha256 == sha256,
            tokens.c.revoked.is_(None),
        )  # fmt: skip
        with self._reading() as connection:
            row = connection.execute(this).one_or_none()
        if row is None or (row.expires is not None and row.expires <= datetime.now(UTC)):
            return None
        return Person(f"token {row.name}"[:_LONGEST_NAME], None, frozenset(row.scopes))

    def _of_session(self, sha256: str) -> Person | None:
        now = datetime.now(UTC)
        this = sa.and_(sessions.c.station == self._station, sessions.c.sha256 == sha256)
        with self._reading() as connection:
            found = connection.execute(sa.select(sessions).where(this)).one_or_none()
            row = None if found is None else self._row(connection, found.user)
        if found is None or row is None or row.disabled is not None:
            return None
        if found.seen < now - _IDLE or found.created < now - _LONGEST:
            return None
        if found.seen < now - _SEEN:
            with self._changing() as connection:
                connection.execute(sa.update(sessions).where(this).values(seen=now))
        return Person(row.name, row.role, ROLES[row.role])

    def _forget(self) -> None:
        with self._lock:
            self._known.clear()


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _said(role: str, disabled: datetime | None) -> dict[str, Any]:
    return {"role": role, "disabled": disabled is not None}


def _normal(password: str) -> str:
    return unicodedata.normalize("NFKC", password)


def _checked_name(name: str) -> str:
    found = unicodedata.normalize("NFKC", name.strip())
    if not found or len(found) > _LONGEST_NAME or not found.isprintable():
        raise SettingsError(f"the name is {name!r}: give 1 to {_LONGEST_NAME} characters")
    return found


def _checked_password(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise SettingsError(
            f"the password has {len(password)} characters: give {SHORTEST_PASSWORD} or more, such "
            "as some words"
        )
    return _normal(password)


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


_nobodys: list[str] = []


def _nobody() -> str:
    """The hash of a password that nobody has."""
    if not _nobodys:
        _nobodys.append(PasswordHasher().hash(secrets.token_urlsafe(32)))
    return _nobodys[0]
