"""Own metrics of a machine that is not there: as a service on it would give them. Pure."""

from fleetpulse.proto import fleetpulse_pb2 as pb


def simulated_own_metrics(samples: int, load: float, uptime_seconds: float) -> list[pb.CustomMetric]:
    """So many samples, gauges and counters by turns, that follow the load, 0 to 1."""
    depth = pb.CustomMetric(
        name="queue_depth", type=pb.CUSTOM_TYPE_GAUGE, help="Requests that wait, by queue.", label_names=["queue"]
    )
    served = pb.CustomMetric(
        name="requests_total", type=pb.CUSTOM_TYPE_COUNTER, help="Requests served, by queue.", label_names=["queue"]
    )
    for number in range(samples):
        queue, is_gauge = [f"queue-{number // 2}"], number % 2 == 0
        value = round(40.0 * load * (1 + number % 5)) if is_gauge else round(uptime_seconds * (1 + number % 3))
        (depth if is_gauge else served).samples.add(label_values=queue, value=value)
    return [metric for metric in (depth, served) if metric.samples]
