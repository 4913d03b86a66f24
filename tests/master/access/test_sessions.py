"""master.access.sessions"""

from pathlib import Path

from fleetpulse.master.access.sessions import MAX_SESSIONS_PER_TOKEN, SessionStore
from fleetpulse.master.access.store import TokenFile, TokenStore
from fleetpulse.master.access.tokens import Role, make_token


def test_many_sessions_of_one_token_end_no_session_of_another(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    (reader, often), (admin, once) = (make_token(name, Role.READ, 0.0, None) for name in ("reader", "admin"))
    file.change(lambda _tokens: [reader, admin])
    sessions = SessionStore(TokenStore(file))
    begun = [sessions.begin(secret) for secret in (once, *[often] * 2000)]
    kept = [one[1].name for one in begun if one is not None and sessions.identity(one[0]) is not None]
    assert kept == ["admin", *["reader"] * MAX_SESSIONS_PER_TOKEN]
