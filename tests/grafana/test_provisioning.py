"""The provisioning of Grafana matches the folders, the dashboards and Prometheus."""

from typing import Any

import pytest
import yaml

from tests.grafana.boards import FOLDER, UIDS, load
from tests.tools import ROOT

PROVISIONING = ROOT / "grafana" / "provisioning"

MOUNTS = {"./grafana/provisioning": "/etc/grafana/provisioning", "./grafana/dashboards": "/var/lib/grafana/dashboards"}
"""Where a container finds the folders."""


def provisioned(path: str) -> dict[str, Any]:
    content = yaml.safe_load((PROVISIONING / path).read_text(encoding="utf-8"))
    assert content["apiVersion"] == 1
    assert isinstance(content, dict)
    return content


def test_provisioning_has_only_files_that_grafana_reads() -> None:
    files = {str(path.relative_to(PROVISIONING)) for path in PROVISIONING.rglob("*") if path.is_file()}
    assert files == {"datasources/prometheus.yml", "dashboards/fleetpulse.yml"}


def test_data_source_is_prometheus_with_the_scrape_interval() -> None:
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["uid"], source["access"]) == ("prometheus", "fleetpulse-prometheus", "proxy")
    # The dashboards take what is chosen at their head, and at first the default.
    assert source["isDefault"] is True
    for uid in UIDS:
        chosen = next(v for v in load(uid)["templating"]["list"] if v["name"] == "datasource")
        assert (chosen["query"], chosen["current"]["value"]) == (source["type"], "default")
    scraping = yaml.safe_load((ROOT / "monitoring" / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]


def test_dashboards_come_from_the_mounted_folder() -> None:
    (provider,) = provisioned("dashboards/fleetpulse.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == MOUNTS["./grafana/dashboards"]
    assert ROOT / "grafana" / "dashboards" == FOLDER
    assert provider["allowUiUpdates"] is False


def test_compose_mounts_dashboards_and_runs_prometheus() -> None:
    compose = ROOT / "docker-compose.yml"
    if not compose.exists():
        pytest.skip("there is no docker-compose.yml")
    services = yaml.safe_load(compose.read_text(encoding="utf-8"))["services"]
    mounts = dict(_mount(volume) for volume in services["grafana"]["volumes"])
    assert mounts.items() >= MOUNTS.items()
    (source,) = provisioned("datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services


def _mount(volume: str | dict[str, Any]) -> tuple[str, str]:
    """Where from, and where to, of either way to write it."""
    if isinstance(volume, dict):
        return volume["source"], volume["target"]
    source, target, *_ = volume.split(":")
    return source, target
