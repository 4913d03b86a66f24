"""The store: tasks and the history of telemetry in SQLite or PostgreSQL.

``SqlTaskStore`` (``store``) is used on the gevent hub and makes no database call there. One native thread writes, in
order (``writes``, ``writer``, ``batch``); a few others read (``reads``, ``logs``). Results come back to the hub.
"""
