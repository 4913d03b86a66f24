"""Builds PromQL. It contains the variables of a dashboard: ``$search``, ``$worker``, ``$__rate_interval``.

Prometheus adds ``instance`` and ``job`` to every series. No query selects their values, and every panel aggregates
without them, so the dashboards work with any name of the scrape job.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

TOP = 10
"""Maximum lines of a panel about single workers or devices."""

ROWS = 200
"""Maximum rows of a table."""


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""


class Workers(NamedTuple):
    """The workers of a dashboard, as matchers of ``worker_id``."""

    matchers: str

    def __call__(self, name: str, *more: str) -> str:
        """Selects the metric ``fleetpulse_worker_NAME``."""
        return f"fleetpulse_worker_{name}{{{', '.join((self.matchers, *more))}}}"

    def recorded(self, name: str) -> str:
        """Selects the recording rule ``fleetpulse:NAME`` of monitoring/rules/."""
        return f"fleetpulse:{name}{{{self.matchers}}}"


MATCHING = Workers('worker_id=~"$search"')
ONE = Workers('worker_id="$worker"')
SELECTED = Workers('worker_id=~"$search", worker_id=~"$worker"')


def by_worker(expr: str) -> str:
    """For tables only. Over a time range it is slow for a large fleet; there, aggregate after ``topk``."""
    return f"max by (worker_id) ({expr})"


def or_zero(expr: str) -> str:
    """Returns 0 instead of an empty result."""
    return f"{expr} or vector(0)"


def rate(selector: str, at: str = "") -> str:
    return f"rate({selector}[$__rate_interval]{at})"


def top(make: Callable[[str], str], by: str = "worker_id", count: int = TOP) -> str:
    """Selects the series that are highest at the end of the time range, and shows them over the whole range.

    Plain ``topk`` selects at every step, so it would draw every worker that was high at any time. ``make`` gets the
    modifier of each selector. The aggregation is last: 10,000 groups at each of 240 steps take Prometheus 20 s.
    """
    return f"max by ({by}) ({make('')} and topk({count}, {make(' @ end()')}))"


def quantile(share: float, name: str, by: str = "") -> str:
    """A quantile of the histogram ``fleetpulse_NAME``, by labels such as "route" or "route, method"."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'fleetpulse_{name}_bucket')}))"


def quantiles(name: str) -> list[Query]:
    return [Query(quantile(share, name), f"{share:.0%}") for share in (0.5, 0.95, 0.99)]


def buckets(name: str) -> Query:
    """Every bucket of the histogram ``fleetpulse_NAME``, for a heat map."""
    return Query(f"sum by (le) (increase(fleetpulse_{name}_bucket[$__rate_interval]))", "{{le}}")


def distribution(ratio: str) -> Query:
    """The number of series of a ratio in each tenth, for a heat map: 10 series for any fleet."""
    tenths = (
        f'label_replace(count({ratio} <= {le}) or vector(0), "le", "{le}", "", "")'
        for le in (f"{n / 10:.1f}" for n in range(1, 11))
    )
    return Query(" or ".join(tenths), "{{le}}")


def with_info(expr: str, info: str, on: str, labels: str) -> str:
    """Adds labels of an ``_info`` metric. A series without info is kept without these labels."""
    named = f"max by ({on}, {labels}) ({info})"
    return f"({expr}) * on ({on}) group_left ({labels}) topk by ({on}) (1, {named}) or on ({on}) ({expr})"


def of_master(selector: str) -> str:
    """Only series of the master: other targets also have ``process_...`` and ``scrape_...``."""
    return f"{selector} and on (instance, job) fleetpulse_build_info"


def alerts(matchers: Mapping[str, str] | None = None) -> str:
    """Seconds that each firing alert of FleetPulse has been active; the label ``about`` names the affected part."""
    chosen = "".join(f', {label}=~"{pattern}"' for label, pattern in (matchers or {}).items())
    names = f'alertname=~"FleetPulse.+"{chosen}'
    firing = f'ALERTS_FOR_STATE{{{names}}} and ignoring (alertstate) ALERTS{{{names}, alertstate="firing"}}'
    about = f'label_join({firing}, "about", " ", {_ABOUT})'
    return f"time() - topk({ROWS}, max by (alertname, severity, worker_id, about) ({about}))"


_ABOUT = ", ".join(f'"{label}"' for label in ("mountpoint", "gpu", "reading", "collector", "method", "code", "reason"))
"""Labels of alerts that name a part of a machine or of the master."""

FIRING = 'ALERTS{alertname=~"FleetPulse.+", alertstate="firing"}'
