"""The audit trail: who changed what, from where, and who was refused. A file that only grows, and turns over by size.

What happens is recorded on the hub, which never waits; a thread of its own writes it; it is read from its end.
"""
