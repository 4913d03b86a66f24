"""The benchmark: a real master with a simulated fleet, compared with its peers. ``python -m tests.bench --help``.

__main__   the steps of a run, in order
processes  starts and stops processes, and measures their CPU and memory
fleet      a master with its workers
window     the steady window: heartbeats, CPU, memory, time to visible
floor      the same streams at a bare grpc.aio server (bare)
batch      agents that report for many workers
storm      all workers connect at once
overload   the master has half of the processor time that its fleet takes
unary      single calls instead of streams
rest       REST with wrk and /metrics, under heartbeats
probe      a worker that measures when its own heartbeats become visible
peers      the same samples in prometheus_client (latest) and in the Pushgateway
tasks      submits, placement, containers, a long task history
hostile    response times for other clients during an attack
idle       a master with one worker
manager    the TelemetryManager by itself
figures    every figure of the table, with its goal
report     the table, the JSON, docs/performance.md
"""
