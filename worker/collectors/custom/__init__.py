"""Metrics of the operator's own: what plug-ins, commands and files say, checked and made fit for a heartbeat.

wire       metric families as prometheus_client has them, to what goes over the wire
text       Prometheus' text format, to the same
gathering  what several sources may say together
plugins    Python code that is installed beside the worker
process    one run of a command, bounded
commands   commands, each on a thread of its own
textfile   the files of a folder
sources    what of all this an operator asked for
"""
