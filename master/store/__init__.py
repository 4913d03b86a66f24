"""The store: what was promised about tasks, in SQLite or PostgreSQL.

``SqlTaskStore`` (``store``) is called on the gevent hub and does no database call there. One native thread writes, in
the order in which things were handed over (``queue``, ``writer``, ``batch``); a few others read (``readers``,
``reading``, ``paging``, ``logs``). What they have done comes back to the hub in batches
(``answer``, ``master.mailbox``).
"""
