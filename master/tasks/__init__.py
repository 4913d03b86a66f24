"""The task service: what was asked for, where it runs, how it ended, and who may report it.

request          what a submitter may say; the one definition of a request
records          tasks and attempts, immutable; the port of the store
transitions      (task, event) -> (task', instruction); pure
placement        (offers, queue) -> plan; pure
registry         the one place where tasks change
service          what REST asks for
attempt_reports  what workers report
"""
