"""Who may do what: roles are sets of scopes, and each route of the service needs one scope."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Scope = Literal["read", "inspect", "feedback", "change", "admin"]
Role = Literal["viewer", "operator", "engineer", "admin"]

SCOPES: dict[Scope, str] = {
    "read": "see records, photos, models and figures",
    "inspect": "have photos inspected, and taken by cameras",
    "feedback": "say what a part was, acknowledge drift alarms, pause cameras",
    "change": "change thresholds and models, fit, name defaults, retire products, send tests",
    "admin": "see the audit trail, let people and programs in, forget unsent messages",
}
"""What each scope allows."""

ROLES: dict[str, frozenset[Scope]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "inspect", "feedback"}),
    "engineer": frozenset({"read", "inspect", "feedback", "change"}),
    "admin": frozenset({"read", "inspect", "feedback", "change", "admin"}),
}
"""The scopes of each role."""

# The first that fits; paths are those after /api/v1/.
_RULES: tuple[tuple[str, str, Scope | None], ...] = (
    ("GET", r"me|health|openapi\.json", None),
    ("PUT", r"me/password", None),
    ("GET|POST|PUT|DELETE", r"(users|tokens|audit)(/.*|\.jsonl)?", "admin"),
    ("DELETE", r"outputs/[^/]+/waiting", "admin"),
    ("GET", r".*", "read"),
    ("POST", r"inspect|inspect-batch|cameras/[^/]+/trigger", "inspect"),
    ("POST", r"cameras/[^/]+/(pause|resume)", "feedback"),
    ("PUT", r"products/[^/]+/next-part", "inspect"),
    ("POST|PUT|DELETE", r"records/.*", "feedback"),
    ("POST", r"products/[^/]+/drift/acknowledge", "feedback"),
    ("POST|PUT|DELETE", r"(products|fit|outputs)(/.*)?", "change"),
)


@dataclass(frozen=True)
class Person:
    """Who asks: a user, or a program with a token.

    Attributes:
        name: for the audit trail.
        role: of a user; None for a program.
        scopes: what they may do.
    """

    name: str
    role: Role | None
    scopes: frozenset[Scope]


def rule_of(method: str, path: str) -> tuple[bool, Scope | None]:
    """Whether there is a rule for a route, and the scope that it needs; None: any person will do.

    Args:
        method: in capitals; HEAD counts as GET.
        path: after /api/v1/.
    """
    method = "GET" if method in ("HEAD", "OPTIONS") else method
    for methods, pattern, scope in _RULES:
        if re.fullmatch(methods, method) and re.fullmatch(pattern, path):
            return True, scope
    return False, "admin"


def refusal_of(person: Person, method: str, path: str) -> str | None:
    """Why a person may not ask for a route, or None where they may."""
    scope = rule_of(method, path)[1]
    if scope is None or scope in person.scopes:
        return None
    if person.role is None:
        return f"this needs a token with the scope '{scope}': ask an admin for one"
    takes = next(role for role, scopes in ROLES.items() if scope in scopes)
    return f"{person.name} is {person.role}, and this takes the role {takes}: ask somebody who is"
