"""Brings what older versions stored in the clear under seal, when a database is opened. Called by the writer's thread.

Not a step of Alembic's: that runs in a process of its own, which has no key.
"""

import contextlib
import json
import logging
import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, select, update

from fleetpulse.master.store.sealing import Encryptor
from fleetpulse.master.store.tables import tasks

_LOGGER = logging.getLogger(__name__)

_AT_ONCE = 1_000


def seal_all(engine: Engine, seal: Encryptor) -> int:
    """How many tasks were changed; each thousand in a transaction of its own, so that being killed harms nothing."""
    count = 0
    while found := _seal_in_one(engine, seal):
        count += found
    if count:
        _LOGGER.info("the environments and digests of %d tasks are sealed now", count)
        _erase_remains(engine)
    return count


def _seal_in_one(engine: Engine, seal: Encryptor) -> int:
    with engine.begin() as connection:
        return _seal_some(connection, seal)


def _seal_some(connection: Connection, seal: Encryptor) -> int:
    columns = (tasks.c.sequence, tasks.c.env, tasks.c.idempotency_digest)
    chosen = select(*columns).where(tasks.c.env_names.is_(None)).order_by(tasks.c.sequence).limit(_AT_ONCE)
    changes = []
    for sequence, text, digest in connection.execute(chosen):
        env: dict[str, str] = json.loads(text)
        sealed = {
            "sealed": seal.seal(env),
            "names": list(env),
            "digest": None if digest is None else seal.digest(digest),
        }
        changes.append({"row": sequence, **sealed})
    if changes:
        new: dict[str, Any] = {
            "env": bindparam("sealed"),
            "env_names": bindparam("names"),
            "idempotency_digest": bindparam("digest"),
        }
        connection.execute(update(tasks).where(tasks.c.sequence == bindparam("row")).values(new), changes)
    return len(changes)


def _erase_remains(engine: Engine) -> None:
    """What was overwritten or deleted may still be in the file, and in its journal."""
    if engine.dialect.name != "sqlite":
        _LOGGER.warning("older versions of these rows stay on the server's disk until somebody runs VACUUM FULL tasks")
        return
    try:
        with contextlib.closing(engine.raw_connection()) as connection:
            for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.cursor().execute(statement).close()
    except sqlite3.Error as error:
        _LOGGER.warning("the database was not vacuumed, so what was in the clear may remain in it: %s", error)
