"""A REST client with one connection for each request, so that none survives a web process."""

from typing import Any

import requests

REQUEST_SECONDS = 10.0
_PAGE = 500


class RestClient:
    """Safe to use from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Raises ``requests.RequestException`` while there is no answer."""
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Connection"] = "close"
            return session.request(method, self._url + path, timeout=REQUEST_SECONDS, **kwargs)

    def json(self, path: str, **params: Any) -> Any:
        """The answer of a GET. ``requests.RequestException`` for any but 200."""
        response = self.ask("GET", path, params=params)
        response.raise_for_status()
        return response.json()

    def all_tasks(self, **params: Any) -> list[dict[str, Any]]:
        """All pages of ``/api/tasks``."""
        tasks: list[dict[str, Any]] = []
        path: str | None = "/api/tasks"
        params["limit"] = _PAGE
        while path:
            response = self.ask("GET", path, params=params)
            response.raise_for_status()
            tasks += response.json()
            path, params = response.links.get("next", {}).get("url"), {}
        return tasks

    def log(self, task_id: str, attempt: int) -> bytes | None:
        """The whole log of one attempt; ``None`` when there is none."""
        params = {"attempt": attempt, "format": "text"}
        response = self.ask("GET", f"/api/tasks/{task_id}/logs", params=params)
        if response.status_code == 404:
            return None
        response.raise_for_status()
        return response.content
