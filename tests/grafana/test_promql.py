"""The names in a query."""

from tests.grafana.promql import names_in


def test_metrics_matchers_and_labels_are_found() -> None:
    names = names_in(
        'sum by (le, x) (rate(fleetpulse_a_bucket{worker_id=~"up|fleetpulse_no", y!="}"}[$__rate_interval]))'
        " and on (instance, job) fleetpulse_build_info"
        " or fleetpulse:b:ratio * ignoring (z) group_left () process_open_fds"
    )
    assert names.metrics == {"fleetpulse_a_bucket", "fleetpulse_build_info", "fleetpulse:b:ratio", "process_open_fds"}
    assert names.labels == {"le", "x", "instance", "job", "z"}
    assert ("fleetpulse_a_bucket", "worker_id") in names.matched
