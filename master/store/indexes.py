"""The index with an option of PostgreSQL's. Apart from the tables, because to name that option loads the whole dialect.

For migrations and tests: a master asks the tables only.
"""

from sqlalchemy import Index, text

from fleetpulse.master.store.tables import metadata, tasks

__all__ = ["metadata"]

_IN_THE_CLEAR = text("env_names IS NULL")
# Empty but while an older database is opened, so that to look is nothing.
Index("ix_tasks_in_the_clear", tasks.c.sequence, sqlite_where=_IN_THE_CLEAR, postgresql_where=_IN_THE_CLEAR)
