"""Cases for every alert, in one module per rule file."""

from tests.monitoring.cases import anomalies, capacity, master, tasks, workers

CASES = [*workers.CASES, *capacity.CASES, *tasks.CASES, *master.CASES, *anomalies.CASES]
