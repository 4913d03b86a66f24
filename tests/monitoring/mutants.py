"""Rules with one changed number, to check that the tests detect the change."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.monitoring.rules import Alert, groups_of

LIMIT = re.compile(r"(?<=[<>=] )(\d+(?:\.\d+)?)\b")


class Mutant(NamedTuple):
    """``change`` describes the change."""

    name: str
    change: str
    expr: str
    pending: str


def mutants_of(alert: Alert) -> list[Mutant]:
    """Returns the alert with each limit a quarter or one lower or higher, or its wait one minute shorter or longer."""
    changes = [*_limits(alert), *_waits(alert)]
    return [Mutant(f"Mutant{number}Of{alert.name}", *change) for number, change in enumerate(changes)]


def _limits(alert: Alert) -> Iterator[tuple[str, str, str]]:
    for match in LIMIT.finditer(alert.expr):
        value = float(match[1])
        step = 1.0 if value <= 10 and value == int(value) else value / 4
        for other in (value - step, value + step):
            expr = f"{alert.expr[: match.start()]}{other:g}{alert.expr[match.end() :]}"
            line = alert.expr[: match.end()].splitlines()[-1].strip()
            yield f"{line} -> {other:g}", expr, alert.pending


def _waits(alert: Alert) -> Iterator[tuple[str, str, str]]:
    minutes = int(alert.pending.removesuffix("m"))
    for other in (minutes - 1, minutes + 1):
        yield f"for: {minutes}m -> {other}m", alert.expr, f"{other}m"


def with_rules(alert: Alert, mutants: Sequence[Mutant], folder: Path) -> list[Path]:
    """Returns rule files in which the mutants replace the alert."""
    groups = groups_of(alert.file)
    for group in groups:
        rules = [rule for rule in group["rules"] if "record" in rule]
        for rule in group["rules"]:
            if rule.get("alert") == alert.name:
                rules += [rule | {"alert": one.name, "expr": one.expr, "for": one.pending} for one in mutants]
        group["rules"] = rules
    file = folder / alert.file.name
    file.write_text(yaml.safe_dump({"groups": [group for group in groups if group["rules"]]}, allow_unicode=True))
    return [*(path for path in alert.rule_files if path != alert.file), file]
