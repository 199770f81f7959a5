"""Users, roles, sessions and tokens; and which route needs which scope."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from conftest import textured
from reconpatch.cli.main import app
from reconpatch.errors import AccessError, BusyError, NotFoundError, SettingsError
from reconpatch.station import people as people_module
from reconpatch.station.guard import Access
from reconpatch.station.people import People
from reconpatch.station.permissions import ROLES, SCOPES, Person, refusal_of, rule_of
from reconpatch.station.records import Records
from reconpatch.station.service import create_app
from reconpatch.station.tables import sessions, tokens
from test_service import API, problem, start  # noqa: F401  (a fixture)
from test_station import png

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(people_module, "PasswordHasher", lambda: quick)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "records.sqlite", "line 1")
    yield opened
    opened.close()


@pytest.fixture
def people(records: Records, clock: Clock) -> People:
    made = People("line 1", records._reading, records._changing, records.audit, clock)
    made.set_user("Ada", role="admin", password=PASSWORD, by="root")
    return made


# --- Users ---------------------------------------------------------------------------------------


def test_users_are_added_changed_and_disabled(people: People, records: Records) -> None:
    people.set_user(" Bob ", role="viewer", password=PASSWORD)
    people.set_user("Bob", role="operator", by="Ada")
    people.set_user("Bob", disabled=True, by="Ada")
    ada, bob = people.users()
    assert (ada.name, ada.role, ada.disabled) == ("Ada", "admin", None)
    assert (bob.name, bob.role, bob.disabled is None) == ("Bob", "operator", False)
    with pytest.raises(AccessError, match="the name or the password is wrong"):
        people.log_in("Bob", PASSWORD)
    people.set_user("Bob", disabled=False, by="Ada")
    assert people.log_in("Bob", PASSWORD)
    trail = [(e.what, e.subject, e.who, e.before, e.after) for e in records.audit.page()][::-1]
    viewer, operator, off = (
        {"role": "viewer", "disabled": False}, {"role": "operator", "disabled": False},
        {"role": "operator", "disabled": True},
    )  # fmt: skip
    assert trail[1:] == [
        ("user", "Bob", None, None, viewer),
        ("user", "Bob", "Ada", viewer, operator),
        ("user", "Bob", "Ada", operator, off),
        ("login refused", "Bob", None, None, None),
        ("user", "Bob", "Ada", off, operator),
        ("login", "Bob", "Bob", None, None),
    ]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("Bob", {"role": "boss", "password": PASSWORD},
         "the role is 'boss': give viewer, operator, engineer or admin"),
        ("Bob", {"role": "viewer", "password": "eleven char"}, "11 characters: give 12 or more"),
        ("Bob", {"role": "viewer"}, "no user 'Bob' yet: give a role and a password"),
        (" ", {"role": "viewer", "password": PASSWORD}, "give 1 to 80 characters"),
        ("Ada", {"role": "viewer"}, "Ada is the only admin"),
        ("Ada", {"disabled": True}, "Ada is the only admin"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_changes_nothing(
    people: People, name: str, given: dict[str, Any], said: str
) -> None:
    before = people.users()
    with pytest.raises(SettingsError, match=said):
        people.set_user(name, **given)
    assert people.users() == before
    assert people.has_admin()


def test_passwords_and_secrets_are_kept_as_hashes(people: People, tmp_path: Path) -> None:
    session = people.log_in("Ada", PASSWORD)
    _, token = people.make_token("camera", ["inspect"])
    with sqlite3.connect(tmp_path / "records.sqlite") as database:
        dumped = "\n".join(database.iterdump())
    database.close()
    assert "$argon2id$" in dumped
    assert [one for one in (PASSWORD, session, token, token[4:]) if one in dumped] == []


# --- Sessions ------------------------------------------------------------------------------------


def test_a_session_is_who_logged_in_until_they_log_out(people: People) -> None:
    secret = people.log_in("Ada", PASSWORD)
    assert people.known(secret) == (False, None)
    ada = Person("Ada", "admin", ROLES["admin"])
    assert people.who(secret) == ada
    assert people.known(secret) == (True, ada)
    people.log_out(secret)
    assert people.who(secret) is None
    people.log_out(secret)
    assert people.who("") is None


def test_a_session_ends_when_it_is_not_used_and_after_a_week(
    people: People, records: Records, clock: Clock
) -> None:
    def after(**ago: timedelta) -> Person | None:
        secret = people.log_in("Ada", PASSWORD)
        now = datetime.now(UTC)
        with records._changing() as connection:
            times = {name: now - length for name, length in ago.items()}
            newest = sessions.c.sha256 == people_module._sha256(secret)
            connection.execute(sa.update(sessions).where(newest).values(**times))
        return people.who(secret)

    assert after(seen=timedelta(hours=11)) is not None
    assert after(seen=timedelta(hours=13)) is None
    assert after(created=timedelta(days=6)) is not None
    assert after(created=timedelta(days=8)) is None


def test_who_is_changed_has_to_log_in_again(people: People) -> None:
    people.set_user("Bob", role="viewer", password=PASSWORD)
    secret = people.log_in("Bob", PASSWORD)
    people.change_password("Bob", PASSWORD, "another twelve letters")
    assert people.who(secret) is None
    with pytest.raises(AccessError, match="old password is wrong"):
        people.change_password("Bob", PASSWORD, "yet another twelve")
    assert people.log_in("Bob", "another twelve letters")


def test_what_another_process_takes_away_counts_after_five_seconds(
    people: People, records: Records, clock: Clock
) -> None:
    secret = people.log_in("Ada", PASSWORD)
    assert people.who(secret) is not None
    other = records.people()  # as a command has it
    other.set_user("Ada", password=PASSWORD)
    assert people.who(secret) is not None
    clock.now += 5.1
    assert people.who(secret) is None


def test_a_name_waits_after_five_wrong_passwords(people: People, clock: Clock) -> None:
    for name in ("Ada", "nobody"):
        for _ in range(5):
            with pytest.raises(AccessError):
                people.log_in(name, "wrong password")
        with pytest.raises(BusyError, match="in about 6 s"):
            people.log_in(name, PASSWORD)
    clock.now += 5.1
    with pytest.raises(AccessError):
        people.log_in("Ada", "wrong password")
    with pytest.raises(BusyError, match="in about 11 s"):
        people.log_in("Ada", PASSWORD)
    clock.now += 10.1
    assert people.log_in("Ada", PASSWORD)
    with pytest.raises(AccessError):  # it counts from the beginning again
        people.log_in("Ada", "wrong password")


# --- Tokens --------------------------------------------------------------------------------------


def test_a_token_does_what_its_scopes_say_until_it_is_taken_back(
    people: People, records: Records, clock: Clock
) -> None:
    made, secret = people.make_token("camera 1", ["inspect", "read", "read"], by="Ada")
    assert secret.startswith("rcp_")
    assert (made.scopes, made.expires) == (("read", "inspect"), None)
    assert people.tokens() == [made]
    assert people.who(secret) == Person("token camera 1", None, frozenset({"read", "inspect"}))
    people.revoke(made.id)
    assert people.who(secret) is None
    with pytest.raises(NotFoundError, match="no token 1 to take back"):
        people.revoke(made.id)
    short, secret = people.make_token("visitor", ["read"], days=1)
    assert people.who(secret) is not None
    with records._changing() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        this = sa.update(tokens).where(tokens.c.id == short.id)
        connection.execute(this.values(expires=past))
    clock.now += 10
    assert people.who(secret) is None
    with pytest.raises(SettingsError, match="the scope is 'all': give read, inspect"):
        people.make_token("x", ["all"])
    with pytest.raises(SettingsError, match="the scope is 'none'"):
        people.make_token("x", [])


# --- Permissions ---------------------------------------------------------------------------------


def test_each_role_may_do_what_the_one_before_may() -> None:
    viewer, operator, engineer, admin = ROLES.values()
    assert viewer < operator < engineer < admin == set(SCOPES)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "records", "read"),
        ("HEAD", "records/7/photo", "read"),
        ("POST", "inspect", "inspect"),
        ("POST", "records/7/feedback", "feedback"),
        ("POST", "products/disc/drift/acknowledge", "feedback"),
        ("PUT", "products/disc/threshold", "change"),
        ("POST", "products/disc/rollback", "change"),
        ("DELETE", "fit/photos", "change"),
        ("POST", "outputs/erp/test", "change"),
        ("GET", "cameras/top/frame", "read"),
        ("POST", "cameras/top/trigger", "inspect"),
        ("POST", "cameras/top/pause", "feedback"),
        ("POST", "cameras/top/resume", "feedback"),
        ("DELETE", "outputs/erp/waiting", "admin"),
        ("GET", "audit", "admin"),
        ("GET", "audit.jsonl", "admin"),
        ("PUT", "users/Ada", "admin"),
        ("GET", "users", "admin"),
        ("POST", "tokens", "admin"),
        ("GET", "me", None),
        ("PUT", "me/password", None),
    ],
)
def test_a_route_needs_a_scope(method: str, path: str, scope: str | None) -> None:
    assert rule_of(method, path) == (True, scope)


def test_what_no_rule_knows_is_for_admins() -> None:
    assert rule_of("POST", "something/new") == (False, "admin")


def test_a_refusal_says_what_it_takes() -> None:
    bob = Person("Bob", "operator", ROLES["operator"])
    said = refusal_of(bob, "PUT", "products/disc/threshold")
    assert said == "Bob is operator, and this takes the role engineer: ask somebody who is"
    assert refusal_of(bob, "POST", "inspect") is None
    camera = Person("token camera", None, frozenset({"inspect"}))
    assert "a token with the scope 'read'" in (refusal_of(camera, "GET", "records") or "")


# --- The service ---------------------------------------------------------------------------------


@pytest.fixture
def service(start: Any) -> TestClient:  # noqa: F811
    """A service that asks everybody who they are; Ada is admin, Bob operator, Vic viewer."""
    client: TestClient = start()
    people = client.station.records.people()
    for name, role in (("Ada", "admin"), ("Bob", "operator"), ("Vic", "viewer")):
        people.set_user(name, role=role, password=PASSWORD)
    asked = create_app(client.station, access=Access(people=people))
    made = TestClient(asked, base_url="http://127.0.0.1:8000", follow_redirects=False)
    made.station, made.people = client.station, people
    return made


def log_in(client: TestClient, name: str) -> httpx.Response:
    form = {"name": name, "password": PASSWORD, "next": "/api/v1/me"}
    return client.post("/login", data=form)


def test_every_route_has_a_rule(service: TestClient) -> None:
    paths = service.app.openapi()["paths"]
    routes = [(method.upper(), path) for path, of in paths.items() for method in of]
    assert len(routes) > 40
    named = [
        (m, path.removeprefix(f"{API}/").replace("{", "").replace("}", "")) for m, path in routes
    ]
    assert [route for route in named if not rule_of(*route)[0]] == []


def test_without_a_name_nothing_is_answered_but_health(service: TestClient) -> None:
    assert service.get(f"{API}/health").status_code == 200
    for path in ("/", "/app.js", f"{API}/me", f"{API}/records"):
        assert "a name is needed" in problem(service.get(path), 401)
    assert "a name is needed" in problem(
        service.get(f"{API}/me", headers={"Authorization": "Bearer rcp_x"}), 401
    )
    page = service.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 401
    assert 'name="password"' in page.text
    wrong = service.post("/login", data={"name": "Ada", "password": "no"})
    assert "The name or the password is wrong" in wrong.text


def test_people_do_what_their_role_allows_under_their_name(service: TestClient) -> None:
    assert log_in(service, "Bob").headers["location"] == "/api/v1/me"
    me = service.get(f"{API}/me").json()
    assert me == {
        "users": True, "name": "Bob", "role": "operator", "scopes": ["read", "inspect", "feedback"],
    }  # fmt: skip
    record = service.post(f"{API}/inspect", content=png(textured(1))).json()
    told = service.post(
        f"{API}/records/{record['id']}/feedback", json={"feedback": "good"},
        headers={"X-Operator": "Ada"},
    )  # fmt: skip
    assert told.status_code == 200
    entry = service.station.records.audit.head()
    assert (entry.what, entry.who, entry.after) == ("feedback", "Bob", "good")
    refused = service.put(f"{API}/products/disc/threshold", json={"score": 1})
    assert "Bob is operator, and this takes the role engineer" in problem(refused, 403)
    assert service.post("/logout").status_code == 303
    assert service.get(f"{API}/me").status_code == 401


def test_an_admin_lets_people_and_programs_in(service: TestClient) -> None:
    log_in(service, "Ada")
    eve = service.put(f"{API}/users/Eve", json={"role": "engineer", "password": PASSWORD})
    assert (eve.json()["name"], eve.json()["role"]) == ("Eve", "engineer")
    names = [one["name"] for one in service.get(f"{API}/users").json()["users"]]
    assert names == ["Ada", "Bob", "Eve", "Vic"]
    made = service.post(f"{API}/tokens", json={"name": "camera", "scopes": ["inspect"]}).json()
    service.cookies.clear()
    bearer = {"Authorization": f"Bearer {made['secret']}"}
    sent = service.post(f"{API}/inspect", content=png(textured(1)), headers=bearer)
    assert sent.status_code == 200
    assert "scope 'read'" in problem(service.get(f"{API}/records", headers=bearer), 403)
    log_in(service, "Ada")
    assert service.delete(f"{API}/tokens/{made['token']['id']}").status_code == 204
    service.cookies.clear()
    assert service.post(f"{API}/inspect", content=b"", headers=bearer).status_code == 401
    log_in(service, "Ada")
    whats = [entry["what"] for entry in service.get(f"{API}/audit").json()["entries"]]
    assert whats[:3] == ["login", "token revoked", "login"]
    export = service.get(f"{API}/audit.jsonl")
    assert len(export.text.splitlines()) == len(whats)


def test_one_gives_oneself_another_password(service: TestClient) -> None:
    log_in(service, "Vic")
    given = {"old": "wrong password", "new": "another twelve letters"}
    assert "old password is wrong" in problem(service.put(f"{API}/me/password", json=given), 403)
    given["old"] = PASSWORD
    assert service.put(f"{API}/me/password", json=given).status_code == 204
    assert service.get(f"{API}/me").status_code == 401


def test_without_users_everybody_may_do_everything(start: Any) -> None:  # noqa: F811
    client = start()
    assert client.get(f"{API}/me").json() == {
        "users": False, "name": None, "role": None, "scopes": list(SCOPES),
    }  # fmt: skip
    assert "has no users: start it with --users" in problem(client.get(f"{API}/users"), 404)
    assert client.get(f"{API}/audit").status_code == 200


# --- Commands ------------------------------------------------------------------------------------


def command(*arguments: object, given: str = "", code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)], input=given)
    assert result.exit_code == code, result.output
    return result


def test_commands_let_people_in_and_prove_the_trail(tmp_path: Path) -> None:
    data = ("--data", tmp_path / "station")
    command("users", "Ada", "--role", "admin", *data, given=f"{PASSWORD}\n{PASSWORD}\n")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    command("users", "Bob", "--role", "viewer", "--password-file", tmp_path / "password", *data)
    command("users", "Bob", "--disable", *data)
    assert command("users", *data).stdout == "Ada: admin\nBob: viewer, disabled\n"
    differ = command("users", "Eve", "--role", "viewer", *data, given=f"{PASSWORD}\nx\n", code=2)
    assert "the two passwords differ" in differ.stderr
    token = command("tokens", "camera", "--scope", "inspect", "--days", 30, *data).stdout.strip()
    assert token.startswith("rcp_")
    assert command("tokens", *data).stdout.startswith("1: camera, inspect, valid until 20")
    assert "ended" in command("tokens", "--revoke", 1, *data).stdout
    export = tmp_path / "audit.jsonl"
    said = command("audit", *data, "-o", export).stdout
    head = said.split()[-1]
    assert said == f"Unbroken: 5 entries, head {head}\n"
    assert command("audit", export, "--head", head).stdout == said
    export.write_text(export.read_text().replace("viewer", "admin", 1))
    assert "entry 2 was changed" in command("audit", export, code=2).stderr
    assert "no entry has the hash 000" in command("audit", *data, "--head", "0" * 63, code=2).stderr


def test_a_service_with_users_needs_an_admin(tmp_path: Path, small_model_file: Path) -> None:
    options = ("--data", tmp_path / "station", "--port", 0, "--users")
    refused = command("serve", small_model_file, *options, code=2)
    assert "somebody has to be admin" in refused.stderr
    (tmp_path / "token").write_text("0123456789abcdef")
    refused = command("serve", *options, "--token-file", tmp_path / "token", code=2)
    assert "leave --token-file out" in refused.stderr
