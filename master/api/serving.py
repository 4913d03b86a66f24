"""Adds the table of routes to the app, and nothing that is not in it."""

from collections.abc import Mapping, Sequence
from typing import Any

import falcon

from fleetpulse.master.api.operations import Route


def serve(app: "falcon.App[Any, Any]", routes: Sequence[Route], resources: Mapping[str, object]) -> None:
    """Add every route. ``resources`` are by path.

    Raises ``ValueError`` for a resource without a route, a route without a resource, and one that takes other methods
    than the table says.
    """
    templates = {route.path for route in routes}
    if templates != resources.keys():
        raise ValueError(f"in the table or among the resources, but not in both: {templates ^ resources.keys()}")
    for route in routes:
        resource = resources[route.path]
        wanted, taken = methods_of(route), _methods_of(resource)
        if wanted != taken:
            raise ValueError(f"{route.path} takes {sorted(taken)}, and the table says {sorted(wanted)}")
        app.add_route(route.path, resource)


def methods_of(route: Route) -> set[str]:
    """The methods that a path takes, ``HEAD`` among them."""
    said: set[str] = {operation.method for operation in route.operations}
    return said | {"HEAD"} if "GET" in said else said


def _methods_of(resource: object) -> set[str]:
    responders = {f"on_{method.lower()}": method for method in falcon.HTTP_METHODS}
    return {method for name, method in responders.items() if hasattr(resource, name)}
