"""The benchmark: a real master under a simulated fleet, with its peers beside it. ``python -m tests.bench --help``.

__main__   what is run, in which order
processes  starting, watching and ending processes; every figure about CPU and memory comes from here
fleet      a master with its workers
window     the steady window: heartbeats, CPU, memory, time to visible
rest       REST by wrk and /metrics, while the fleet beats
probe      a worker of our own that looks at itself from outside
peers      the same samples in prometheus_client (latest) and in the Pushgateway
idle       a master with one worker
manager    the TelemetryManager by itself
figures    every figure of the table, with its goal
report     the table, the JSON, docs/performance.md
"""
