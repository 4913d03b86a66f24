"""Colours of values: where an alert begins, as monitoring/thresholds.py has it."""

from grafana_foundation_sdk.models import dashboard as sdk

from monitoring.thresholds import THRESHOLDS

GREEN, BLUE, ORANGE, RED, GREY = "green", "blue", "orange", "red", "text"

BY_SEVERITY = {"info": BLUE, "warning": ORANGE, "critical": RED}

Limits = sdk.ThresholdsConfig


def steps(*above: tuple[float, str], base: str = GREEN) -> Limits:
    """Coloured from each value on."""
    levels = [sdk.Threshold(None, base), *(sdk.Threshold(value, colour) for value, colour in sorted(above))]
    return Limits(sdk.ThresholdsMode.ABSOLUTE, levels)


def alerting(*names: str) -> Limits:
    """Coloured from where these alerts fire, by their names in ``THRESHOLDS``. Raises ``KeyError`` for another name."""
    return steps(*((THRESHOLDS[name].value, BY_SEVERITY[THRESHOLDS[name].severity]) for name in names))


PLAIN = steps(base=GREY)
"""No alert looks at it."""

SHOWN = steps(base=BLUE)
"""No alert looks at it, and there is nothing good or bad about it."""

ANY = steps((1, RED))
"""One is too many."""

SOME = steps((1, ORANGE))
"""One is worth a look."""

FULL = steps((1.0, ORANGE))
"""Of a share."""

NEVER = Limits(sdk.ThresholdsMode.ABSOLUTE, [sdk.Threshold(None, RED), sdk.Threshold(1, GREEN)])
"""Good at 1, bad at 0."""
