"""Users, their passwords and their tokens."""

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.factories import PASSWORD

from myhealth.common.errors import BadInput, Conflict, NotFound, NotLoggedIn, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.profiles.passwords import generate_password, hash_password, password_matches
from myhealth.profiles.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    KEYS_KEPT_S,
    LEEWAY_S,
    Signer,
    Verifier,
    is_revoked,
    load_secret,
)
from myhealth.profiles.user_import import import_users

WHO, OTHER = "0b9a1c1e-5a0e-4a5c-9b1f-3f3f0d6f7a11", "7c1f6a52-0d0b-4a60-8a5f-2b8f3a9c1d22"
SECRET = b"a secret of the tests, 32 bytes and more"


@pytest.mark.parametrize(
    ("password", "said"),
    [("seven77", "has 7 characters"), ("x" * 73, "has 73 bytes"), ("ä" * 37, "has 74 bytes"), ("nul\0nul\0", "NUL")],
)
def test_a_password_that_bcrypt_cannot_keep_is_refused_with_the_reason(password: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        hash_password(password, 4)
    assert not password_matches(password, hash_password("something else", 4), 4)


@given(st.text(min_size=8, max_size=18).filter(lambda text: "\0" not in text and len(set(text.strip())) > 1))
def test_a_password_opens_what_it_closed(password: str) -> None:
    hashed = hash_password(password, 4)
    assert password_matches(password, hashed, 4)
    assert not password_matches(password + "x", hashed, 4)


def test_a_password_typed_on_another_keyboard_is_the_same() -> None:
    assert password_matches("Zoe\u0308s dog", hash_password("Zo\u00ebs dog", 4), 4)


def test_an_unknown_user_costs_as_much_time_as_a_known_one() -> None:
    def seconds(password: str, hashed: str | None) -> float:
        begun = time.thread_time()  # of the processor: the clock's also depends on who else uses the machine
        password_matches(password, hashed, 10)
        return time.thread_time() - begun

    hashed = hash_password(PASSWORD, 10)
    known = sorted(seconds("wrong password", hashed) for _ in range(7))[3]
    for password, nothing in (("wrong password", None), ("x" * 100, hashed), ("nul\0", hashed)):
        unknown = sorted(seconds(password, nothing) for _ in range(7))[3]
        assert 0.4 < unknown / known < 2.5


def test_a_made_up_password_is_acceptable_and_never_the_same() -> None:
    made = {generate_password() for _ in range(50)}
    assert len(made) == 50
    assert all(len(password) == 19 for password in made)


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b", "a:b", "a\0b", "..", "x" * 151, "a\u200bb", "tab\t", "\ud800", "ｂｏb", "bоb"]
)
def test_a_name_that_cannot_be_one_is_refused(db, name: str) -> None:
    with pytest.raises(BadInput):
        services.create_user(name)


@pytest.mark.parametrize(
    "name", ["bholanath", "dr.ayush", "savita@clinic.example", "भोलानाथ", "Zoë", "o'brien", "100%"]
)
def test_a_name_is_found_in_any_case(db, name: str) -> None:
    made = services.create_user(name)
    assert services.get_user(name.upper()).id == made.id
    with pytest.raises(Conflict):
        services.create_user(name.title())


def test_a_name_is_the_same_however_its_accents_are_written(db) -> None:
    made = services.create_user("Zoe\u0308")
    assert services.get_user("zo\u00eb").id == services.get_user("zoe\u0308").id == made.id


def test_a_name_that_no_database_can_hold_is_just_not_there(db) -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(NotFound):
            services.get_user(name)
        assert services.check_login(name, PASSWORD, rounds=4) is None


def test_a_login_takes_the_right_name_the_right_password_and_an_active_user(db, people) -> None:
    assert services.check_login("Bholanath", PASSWORD, rounds=4).user.id == people["bholanath"]
    assert services.check_login("bholanath", "wrong", rounds=4) is None
    assert services.check_login("nobody", PASSWORD, rounds=4) is None
    assert services.check_login(None, PASSWORD, rounds=4) is None
    assert services.check_login({"$ne": None}, {"$ne": None}, rounds=4) is None
    services.set_active("bholanath", False)
    assert services.check_login("bholanath", PASSWORD, rounds=4) is None
    services.create_user("passwordless")
    assert services.check_login("passwordless", "", rounds=4) is None


def test_a_csv_file_makes_users_and_tells_each_bad_line(db) -> None:
    lines = ["username,full_name,role,password\n", "ada,Ada Lovelace,doctor,analytical\n", "ada,,,\n", "bob,,king,\n",
             "carl,,,short\n", '"dora","Dora, D.",,\n', "eve,,,,,\n", "\n", ",No Name,,\n"]  # fmt: skip
    rows = list(import_users(lines, rounds=4))
    assert [(row.line, bool(row.error)) for row in rows] == [
        (2, False), (3, True), (4, True), (5, True), (6, False), (7, True), (9, True)]  # fmt: skip
    assert "exists already" in rows[1].error
    assert "'king' is not a role" in rows[2].error
    assert services.get_user("dora").full_name == "Dora, D."
    assert services.check_login("ada", "analytical", rounds=4).user.role == "doctor"


def test_a_password_that_is_changed_while_it_is_checked_opens_nothing(db, people, monkeypatch) -> None:
    real = services.password_matches

    def slow(password: str, hashed: str | None, rounds: int) -> bool:
        matches = real(password, hashed, rounds)
        db("update users set password_hash = %s where username = 'bholanath'", hash_password("another one", 4))
        return matches

    monkeypatch.setattr(services, "password_matches", slow)
    assert services.check_login("bholanath", PASSWORD, rounds=4) is None


@pytest.mark.parametrize("change", ["password_hash = 'x'", "active = false"])
def test_the_database_ends_the_tokens_of_whoever_is_changed(db, people, change: str) -> None:
    before = services.check_login("bholanath", PASSWORD, rounds=4)
    db(f"update users set {change} where username = 'bholanath'")
    assert services.get_user("bholanath").tokens_valid_after > before.at


def test_what_is_no_hash_opens_nothing(db, people) -> None:
    db("update users set password_hash = 'not a hash' where username = 'bholanath'")
    assert services.check_login("bholanath", PASSWORD, rounds=4) is None


def test_deleting_somebody_deletes_the_refused_records_that_name_him(db, people) -> None:
    from support.factories import record, take

    take(record(1))
    take(record(1, disease="other"), record(2, patient="savita", disease=5), record(1, patient="savita"))
    assert db("select count(*) from rejections") == [(3,)]
    erase_user("bholanath")
    assert db("select count(*) from rejections") == [(2,)]
    erase_user("SAVITA")
    assert db("select count(*) from rejections") == [(0,)], "one of them could not be a record at all"


@pytest.mark.parametrize("header", ["name,role", "username,pasword", ""])
def test_a_csv_file_with_another_header_is_refused(db, header: str) -> None:
    with pytest.raises(BadInput, match="line 1: the header"):
        list(import_users([header, "ada,doctor"]))


def test_the_command_creates_shows_changes_and_deletes(db, run_cli) -> None:
    made = run_cli("users", "create", "ada", "--role", "doctor", "--full-name", "Ada L.", "--password-stdin",
                   stdin="analytical\n")  # fmt: skip
    assert (made.returncode, made.stdout) == (0, "Created doctor ada (id 1).\n"), made.stderr
    shown = json.loads(run_cli("users", "show", "ADA", "--json").stdout)
    assert shown["password"] is True
    assert shown["checkups"] == 0
    assert run_cli("users", "set-role", "ada", "admin").returncode == 0
    assert run_cli("users", "set-name", "ada", "Ada King").stdout == "ada is called Ada King now.\n"
    assert services.get_user("ada").full_name == "Ada King"
    assert run_cli("users", "disable", "ada").returncode == 0
    assert services.get_user("ada").active is False
    assert run_cli("users", "enable", "ada").returncode == 0
    db("update users set birth_date = '1815-12-10'")
    listed = json.loads(run_cli("users", "list", "--role", "admin", "--json").stdout)
    assert [(user["username"], user["birth_date"]) for user in listed] == [("ada", "1815-12-10")]
    assert run_cli("users", "delete", "ada", stdin="n\n").returncode == 2
    assert run_cli("users", "delete", "ada", "--yes").stdout.startswith("Deleted ada and 0 check-ups.\n")
    assert run_cli("users", "show", "ada").returncode == 2


def test_a_generated_password_is_printed_once_and_alone_on_stdout(db, run_cli) -> None:
    done = run_cli("users", "create", "ada", "--generate")
    password = done.stdout.strip()
    assert services.check_login("ada", password, rounds=4)
    assert password not in done.stderr
    anew = run_cli("users", "set-password", "ada", "--generate").stdout.strip()
    assert services.check_login("ada", anew, rounds=4)
    assert services.check_login("ada", password, rounds=4) is None


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (("create", "ada", "--password-stdin"), "short\n", "it needs at least 8"),
        (("create", "ada", "--password-stdin"), "x" * 73, "at most 72 can be used"),
        (("create", "ada"), "", "no terminal to ask"),
        (("create", "a b", "--no-password"), "", "contains ' '"),
        (("create", "ada", "--generate", "--no-password"), "", "goes with neither"),
        (("set-password", "nobody", "--password-stdin"), "long-enough\n", "no user named nobody"),
        (("create", "ada", "--role", "king"), "", "Invalid value for '--role'"),
        (("import", "/nowhere.csv"), "", "No such file"),
        (("import", "-"), "role\n", "lacks the column username"),
        (("import", "-"), b"username\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_wrong_usage_of_the_command_ends_with_2(db, run_cli, words, stdin, said: str) -> None:
    done = run_cli("users", *words, stdin=stdin)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert db("select count(*) from users") == [(0,)]


def test_the_prompt_is_hidden_and_asks_twice(db, settings, run_cli) -> None:
    import pty

    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover
        import os
        import sys

        own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_BCRYPT_ROUNDS": "4"}
        words = [sys.executable, "-m", "cli", "users", "create", "ada"]
        os.execve(sys.executable, words, {**os.environ, **own})
    import os

    seen = b""
    for typed in (b"short", b"analytical", b"anolytical", b"analytical", b"analytical"):
        while not seen.endswith(b": "):
            seen += os.read(terminal, 1000)
        os.write(terminal, typed + b"\n")
        seen += b"|"
    while True:
        try:
            part = os.read(terminal, 1000)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen
    assert b"analytical" not in seen
    assert b"it needs at least 8; try another" in seen
    assert b"the two differ; try again" in seen
    assert services.check_login("ada", "analytical", rounds=4)


# -- tokens ----------------------------------------------------------------------------------------------------------


def signed(**changes) -> str:
    """A token with these claims changed, signed with the right key."""
    signer = Signer(SECRET, 3600)
    now = time.time()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": WHO, "iat": now, "exp": now + 60, "jti": "x", **changes}
    claims = {name: value for name, value in claims.items() if value is not ...}
    return jwt.encode(claims, signer._key, ALGORITHM, headers={"kid": signer.jwk["kid"]})


def forged(header: dict, claims: dict) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, ""])


def test_a_token_says_whose_it_is_until_when() -> None:
    signer = Signer(SECRET, 3600)
    token, expires_at = signer.sign(WHO)
    claims = Verifier(signer.jwks).verify(token)
    assert claims.subject == WHO
    assert abs(claims.expires_at - expires_at.timestamp()) < 1
    assert abs(claims.expires_at - claims.issued_at - 3600) < 1


@pytest.mark.parametrize(
    "changes",
    [{"exp": 1}, {"iss": "other"}, {"aud": "other"}, {"aud": [AUDIENCE, "other"]}, {"sub": 7}, {"sub": "seven"}, {"sub": WHO[:-1]},
     {"exp": ...}, {"iat": ...}, {"sub": ...}, {"jti": ...}, {"aud": ...}, {"iat": 99999999999}],
    ids=repr,
)  # fmt: skip
def test_a_token_with_other_claims_is_refused(changes: dict) -> None:
    with pytest.raises(NotLoggedIn):
        Verifier(Signer(SECRET, 60).jwks).verify(signed(**changes))


def test_a_token_by_another_key_or_none_is_refused() -> None:
    signer, other = Signer(SECRET, 60), Signer(b"another secret of 32 bytes or more", 60)
    verifier = Verifier(signer.jwks)
    claims = jwt.decode(signed(), options={"verify_signature": False})
    kid = signer.jwk["kid"]
    impostor = jwt.encode(claims, other._key, ALGORITHM, headers={"kid": kid})
    public = base64.urlsafe_b64decode(signer.jwk["x"] + "==")
    half = forged({"alg": "HS256", "kid": kid}, claims).rstrip(".")
    code = base64.urlsafe_b64encode(hmac.digest(public, half.encode(), "sha256")).rstrip(b"=").decode()
    for token in (
        impostor,
        f"{half}.{code}",
        other.sign(WHO)[0],
        forged({"alg": "none", "kid": kid}, claims),
        "x",
        "",
        "a.b.c",
        "é",
    ):
        with pytest.raises(NotLoggedIn):
            verifier.verify(token)
    whole = signed()
    for i in range(0, len(whole) - 1, 7):  # the last character's last bits mean nothing
        with pytest.raises(NotLoggedIn):
            verifier.verify(whole[:i] + ("A" if whole[i] != "A" else "B") + whole[i + 1 :])


def test_the_same_secret_signs_alike_on_every_host() -> None:
    assert Verifier(Signer(SECRET, 60).jwks).verify(Signer(SECRET, 60).sign(WHO)[0]).subject == WHO
    assert "d" not in Signer(SECRET, 60).jwks()["keys"][0], "the private part stays"


def test_keys_are_kept_while_the_upload_api_is_away() -> None:
    signer = Signer(SECRET, 60)
    answers = [signer.jwks()]

    def fetch() -> dict:
        if not answers:
            raise Unavailable("gone")
        return answers.pop()

    verifier = Verifier(fetch)
    assert verifier.verify(signer.sign(WHO)[0]).subject == WHO
    assert verifier.verify(signer.sign(OTHER)[0]).subject == OTHER
    with pytest.raises(Unavailable):
        Verifier(fetch).verify(signer.sign(WHO)[0])


def test_a_withdrawn_key_is_forgotten_within_minutes(monkeypatch) -> None:
    old, new = Signer(SECRET, 60), Signer(b"another secret of at least 32 bytes", 60)
    answers = [old.jwks()]
    verifier = Verifier(lambda: answers[-1])
    token = old.sign(WHO)[0]
    assert verifier.check(token).subject == WHO
    answers.append(new.jwks())
    assert verifier.check(token).subject == WHO, "not asked again at once"
    now = time.monotonic()
    monkeypatch.setattr("myhealth.profiles.tokens.time.monotonic", lambda: now + KEYS_KEPT_S + 1)
    with pytest.raises(NotLoggedIn):
        verifier.check(token)
    assert verifier.check(new.sign(WHO)[0]).subject == WHO


def test_kept_keys_let_a_process_start_while_the_upload_api_is_away(tmp_path: Path) -> None:
    signer, file = Signer(SECRET, 60), tmp_path / "keys.json"

    def gone() -> dict:
        raise Unavailable("gone")

    Verifier(signer.jwks, file).fetch()
    assert file.stat().st_mode & 0o777 == 0o600
    later = Verifier(gone, file)
    later.fetch()
    assert later.verify(signer.sign(WHO)[0]).subject == WHO
    for spoil in (
        lambda: file.write_text("{"),
        lambda: file.write_text('{"keys": [1]}'),
        lambda: file.chmod(0o666),
        file.unlink,
    ):
        spoil()
        with pytest.raises(Unavailable):
            Verifier(gone, file).fetch()


def test_a_token_from_ahead_of_the_clock_is_told_in_the_log(caplog) -> None:
    signer = Signer(SECRET, 600)
    with pytest.raises(NotLoggedIn):
        Verifier(signer.jwks).verify(signer.sign(WHO, time.time() + 60)[0])
    assert "ahead of this host's clock" in caplog.text


def test_forged_key_names_do_not_make_it_ask_again_and_again() -> None:
    asked = []
    signer = Signer(SECRET, 60)

    def fetch() -> dict:
        asked.append(1)
        return signer.jwks()

    verifier = Verifier(fetch)
    for kid in ("a", "b", "c", None, 7, ["x"]):
        with pytest.raises(NotLoggedIn):
            verifier.verify(forged({"alg": ALGORITHM, "kid": kid}, {}))
    assert len(asked) == 1


def test_a_checked_token_is_not_believed_longer_than_it_lasts(monkeypatch) -> None:
    signer, now = Signer(SECRET, 40), time.time()
    checked = Verifier(signer.jwks)
    token = signer.sign(WHO)[0]
    assert checked.verify(token).subject == WHO
    assert checked.verify(token) is checked.verify(token)
    assert checked.verify(signer.sign(OTHER)[0]).subject == OTHER
    for made in (token[:-3] + "AAA", token + "A", token.replace(".", "..", 1)):
        with pytest.raises(NotLoggedIn):
            checked.verify(made)
    monkeypatch.setattr("myhealth.profiles.tokens.time.time", lambda: now + 40 + LEEWAY_S + 1)

    def check(self: Verifier, token: str) -> None:
        raise NotLoggedIn("asked again")

    monkeypatch.setattr(Verifier, "check", check)
    with pytest.raises(NotLoggedIn, match="asked again"):
        checked.verify(token)


def test_tokens_end_with_the_password_they_were_given_for() -> None:
    claims = Verifier(Signer(SECRET, 60).jwks).verify(Signer(SECRET, 60).sign(WHO)[0])
    now = datetime.now(UTC)
    assert not is_revoked(claims, None)
    assert not is_revoked(claims, now - timedelta(minutes=1))
    assert is_revoked(claims, now + timedelta(seconds=1))


def test_the_secret_is_made_once_and_for_its_owner_alone(tmp_path) -> None:
    settings = Settings(data_dir=str(tmp_path / "new"))
    secret = load_secret(settings)
    assert load_secret(settings) == secret
    assert len(secret) >= 32
    path = tmp_path / "new" / "secret_key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secret_key"]
    path.write_bytes(b"short")
    with pytest.raises(SettingsError, match="shorter than 32"):
        load_secret(settings)


def test_with_a_database_of_ones_own_a_secret_must_be_given() -> None:
    with pytest.raises(SettingsError, match="MYHEALTH_SECRET_KEY is not set"):
        load_secret(Settings(database_url="postgresql://db/x"))


TABLES = {
    "semicolons": "username;full_name\nnew;A B\n",
    "tabs": "username\tfull_name\nnew\tA B\n",
    "case and blanks": " Username ,FULL_NAME\nnew,A B\n",
    "a column without a name": "username,full_name,\nnew,A B,\n",
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_of_users_is_read_as_spreadsheets_write_it(table: str, db) -> None:
    assert [row.error for row in import_users(table.splitlines(keepends=True), rounds=4)] == [""]
    assert db("select username, full_name from users") == [("new", "A B")]


def test_a_column_that_stands_twice_makes_no_user(db) -> None:
    for table in ("username,username\na,b\n", "username,full_name,Full_Name\na,b,c\n"):
        with pytest.raises(BadInput, match="twice"):
            list(import_users(table.splitlines(keepends=True)))
    (row,) = import_users(["username,\n", "a,extra\n"])
    assert row.error == "it has more fields than the header"
    assert db("select count(*) from users") == [(0,)]
