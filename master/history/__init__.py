"""How the readings of every worker went: taken from each update, thinned out, kept in the store, read again.

``Recorder`` (``recorder``) is the update callback. It puts each heartbeat into a bucket of 15 seconds (``bucket``,
``track``), whose mean, minimum and maximum of each field (``fields``) are one point (``points``). Points are written
twice: every 15 seconds those of all workers together, as one row of a journal, so that a master that was killed has
them again; and a quarter of an hour of one worker as one compressed row, which is what is read. ``HistoryService``
(``service``) reads.
"""
