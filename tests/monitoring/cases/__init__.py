"""Cases for every alert, by the file that its rule stands in."""

from tests.monitoring.cases import anomalies, capacity, master, tasks, workers

CASES = [*workers.CASES, *capacity.CASES, *tasks.CASES, *master.CASES, *anomalies.CASES]
