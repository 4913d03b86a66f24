"""The audit trail: who changed what, from where, and who was refused. An append-only file, rotated by size.

Entries are recorded on the hub, which never waits. A thread writes them. Pages are read from the end of the file.
"""
