"""PostgreSQL for one master at a time: an advisory lock of the very session that writes.

There is no write without the lock, however the connection is lost, and none by a master that another one has followed:
whoever opens the database says so in it, and a master that finds another's word there has an outdated memory.
"""

import logging
import os
import socket
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

from fleetpulse.master.errors import StoreUnavailable
from fleetpulse.master.store.tables import mastership
from fleetpulse.master.store.upsert import insert_or_change

_LOGGER = logging.getLogger(__name__)

_LONGEST_HOST_NAME = 40
"""An application name has 63 bytes at most."""

# A lock for each schema, because each may be a store of its own. The first number is any that nobody else uses.
_LOCK = 4_201_703
_TAKE = "SELECT pg_try_advisory_lock(%s, hashtext(coalesce(current_schema(), '')))"
_LAST = "SELECT coalesce(max(master), 'unknown') FROM mastership"
_HOLDER = """
SELECT activity.application_name, activity.pid
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 2
AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND lock.classid = %s
AND lock.objid::bigint = hashtext(coalesce(current_schema(), ''))::bigint & 4294967295
"""


def application_name() -> str:
    """What PostgreSQL shows of this process."""
    return f"fleetpulse {socket.gethostname()[:_LONGEST_HOST_NAME]}:{os.getpid()}"


class Mastership:
    """Of ``engine``, every connection is given the lock, or is none.

    ``on_taken_over`` is called by the thread that connects, with the reason, when another master has opened the
    database since ``claim``: nothing can be written any more.
    """

    def __init__(self, engine: Engine, on_taken_over: Callable[[str], None]) -> None:
        self._engine, self._on_taken_over = engine, on_taken_over
        self._name = f"{application_name()} {uuid.uuid4().hex}"
        self._is_claimed = False
        self._backend_pid: int | None = None
        event.listen(engine, "connect", self._take)

    def claim(self) -> None:
        """Say in the database that this master has opened it, before anything of it is believed."""
        row = {"number": 1, "master": self._name}
        with self._engine.begin() as connection:
            insert_or_change(connection, mastership, [row], ("number",), ("master",))
        self._is_claimed = True

    def _take(self, connection: Any, _record: Any) -> None:
        """Called by SQLAlchemy for each new connection. Raise ``StoreUnavailable`` where it must not write."""
        try:
            with connection.cursor() as cursor:
                is_held = cursor.execute(_TAKE, (_LOCK,)).fetchone()[0]
                self._check(cursor, is_held=is_held)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self._backend_pid = connection.info.backend_pid

    def _check(self, cursor: Any, *, is_held: bool) -> None:
        if self._is_claimed:
            (master,) = cursor.execute(_LAST).fetchone()
            if master != self._name:
                why = f"another master ({master.rsplit(' ', 1)[0]}) has opened the database"
                _LOGGER.error("%s while this one had no connection to it; nothing is written any more", why)
                self._on_taken_over(why)
                raise StoreUnavailable(why)
        if not is_held:
            raise StoreUnavailable(self._who_holds(cursor))

    def _who_holds(self, cursor: Any) -> str:
        name, pid = cursor.execute(_HOLDER, (_LOCK,)).fetchone() or ("it has just let go", 0)
        if pid == self._backend_pid:
            return f"the server has not noticed yet that a connection of this master ({name}) was lost"
        return (
            f"another master ({name or 'without a name'}, process {pid} of the server) uses it: "
            "give each master its own DATABASE_URL"
        )
