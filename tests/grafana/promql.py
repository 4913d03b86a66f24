"""The names in PromQL. Not a parser: just enough for the queries of the dashboards, which Prometheus itself parses."""

import re
from typing import NamedTuple

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_METRIC = re.compile(r"\b(?:fleetpulse|process|python|scrape)[_:][\w:]+|\bALERTS\w*|\bup\b")
_LABELS = re.compile(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)")


class Names(NamedTuple):
    """The names in a query."""

    metrics: frozenset[str]
    matched: frozenset[tuple[str, str]]
    """Metric and label of each matcher."""

    labels: frozenset[str]
    """Labels to aggregate by, and to join on."""


def names_in(expr: str) -> Names:
    """The names in an expression whose variables are filled in, or not."""
    matched = {(metric, label) for metric, matchers in _SELECTOR.findall(expr) for label in _MATCHER.findall(matchers)}
    bare = _STRING.sub('""', expr)
    labels = {label.strip() for group in _LABELS.findall(bare) for label in group.split(",") if label.strip()}
    return Names(frozenset(_METRIC.findall(bare)), frozenset(matched), frozenset(labels))
