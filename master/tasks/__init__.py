"""The task service: what was asked for, where it runs, how it ended, and who may say so.

records      what a task and an attempt are, immutable
transitions  (task, event) -> (task', what to do about it); pure
scheduler    (capacity, queue) -> placements; pure
ports        what the service asks of a store and of the streams to the workers
service      keeps the live tasks on the hub and carries out what the pure code decides
"""
