"""PromQL, put together. The variables of a dashboard stay in it: ``$search``, ``$worker``, ``$__rate_interval``.

Prometheus adds ``instance`` and ``job`` to every series. No query names a value of theirs,
and what is shown is aggregated
without them, so that the dashboards fit whatever a scrape job is called.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

TOP = 10
"""Lines of a panel that shows single workers or devices."""

ROWS = 200
"""Rows of a table."""


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""


class Workers(NamedTuple):
    """The workers that a dashboard is about, as matchers of ``worker_id``."""

    matchers: str

    def __call__(self, name: str, *more: str) -> str:
        """A selector of the metric ``fleetpulse_worker_NAME``."""
        return f"fleetpulse_worker_{name}{{{', '.join((self.matchers, *more))}}}"

    def recorded(self, name: str) -> str:
        """A selector of what the recording rule ``fleetpulse:NAME`` in monitoring/rules/ gives for each worker."""
        return f"fleetpulse:{name}{{{self.matchers}}}"


FOUND = Workers('worker_id=~"$search"')
ONE = Workers('worker_id="$worker"')
CHOSEN = Workers('worker_id=~"$search", worker_id=~"$worker"')


def by_worker(expr: str) -> str:
    """For tables. Over a time range of a large fleet this is slow: there, aggregate what is left of it."""
    return f"max by (worker_id) ({expr})"


def or_zero(expr: str) -> str:
    """Nothing to count is 0, not an empty panel."""
    return f"{expr} or vector(0)"


def rate(selector: str, at: str = "") -> str:
    return f"rate({selector}[$__rate_interval]{at})"


def top(make: Callable[[str], str], by: str = "worker_id", count: int = TOP) -> str:
    """The series that are the highest at the end of the time range, from its begin on.

    ``topk`` alone chooses anew at every step, and over a day draws every worker that ever was among them. ``make`` gets
    what to write behind each selector. Aggregated is last: 10,000 groups at each of 240 steps take Prometheus 20 s.
    """
    return f"max by ({by}) ({make('')} and topk({count}, {make(' @ end()')}))"


def quantile(share: float, name: str, by: str = "") -> str:
    """Of the histogram ``fleetpulse_NAME``, by the labels ``by`` ("route", or "route, method")."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'fleetpulse_{name}_bucket')}))"


def quantiles(name: str) -> list[Query]:
    return [Query(quantile(share, name), f"{share:.0%}") for share in (0.5, 0.95, 0.99)]


def buckets(name: str) -> Query:
    """Every bucket of the histogram ``fleetpulse_NAME``, for a heat map."""
    return Query(f"sum by (le) (increase(fleetpulse_{name}_bucket[$__rate_interval]))", "{{le}}")


def distribution(ratio: str) -> Query:
    """How many series of a ratio are in each tenth, for a heat map: 10 series however large the fleet is."""
    tenths = (
        f'label_replace(count({ratio} <= {le}) or vector(0), "le", "{le}", "", "")'
        for le in (f"{n / 10:.1f}" for n in range(1, 11))
    )
    return Query(" or ".join(tenths), "{{le}}")


def with_info(expr: str, info: str, on: str, labels: str) -> str:
    """Labels of an ``_info`` metric beside those of ``expr``. One that has no info (yet) stays, without them."""
    named = f"max by ({on}, {labels}) ({info})"
    return f"({expr}) * on ({on}) group_left ({labels}) topk by ({on}) (1, {named}) or on ({on}) ({expr})"


def of_master(selector: str) -> str:
    """Series of the target that is the master: others export ``process_...`` and ``scrape_...`` as well."""
    return f"{selector} and on (instance, job) fleetpulse_build_info"


def alerts(matchers: Mapping[str, str] | None = None) -> str:
    """For how many seconds each alert of FleetPulse has been active, of those that fire; ``about`` says on what."""
    chosen = "".join(f', {label}=~"{pattern}"' for label, pattern in (matchers or {}).items())
    names = f'alertname=~"FleetPulse.+"{chosen}'
    firing = f'ALERTS_FOR_STATE{{{names}}} and ignoring (alertstate) ALERTS{{{names}, alertstate="firing"}}'
    about = f'label_join({firing}, "about", " ", {_ABOUT})'
    return f"time() - topk({ROWS}, max by (alertname, severity, worker_id, about) ({about}))"


_ABOUT = ", ".join(f'"{label}"' for label in ("mountpoint", "gpu", "reading", "collector", "method", "code", "reason"))
"""The labels of alerts that say which part of a machine or of the master is meant."""

FIRING = 'ALERTS{alertname=~"FleetPulse.+", alertstate="firing"}'
