"""docker-compose.yml, Dockerfile and .env.example match each other and the files that they name."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetpulse.master.cli import master_command
from tests.tools import ROOT, require_tool

TEXT = (ROOT / "docker-compose.yml").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::?-(?P<default>[^}]*))?\}")
DEFAULTS = {match["name"]: match["default"] for match in VARIABLE.finditer(TEXT)}


def with_defaults(text: str) -> dict[str, Any]:
    """Returns the file with the defaults of its variables."""
    content = yaml.safe_load(VARIABLE.sub(lambda match: match["default"] or "", text))
    assert isinstance(content, dict)
    return content


COMPOSE = with_defaults(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_SERVICES = ("ca", "master", "worker", "simulate")
RUNNING_SERVICES = [service for service in SERVICES if service != "ca"]
MOUNTS = [
    (service, *str(volume).split(":")) for service, content in SERVICES.items() for volume in content.get("volumes", [])
]


def test_services_are_complete() -> None:
    assert list(SERVICES) == [*OWN_SERVICES, "prometheus", "alertmanager", "grafana"]
    assert "version" not in COMPOSE  # docker compose warns about it, docker-compose does not need it


@pytest.mark.parametrize("files", [[], ["tests/compose/override.yml"]], ids=["alone", "as tested"])
def test_docker_compose_accepts_the_file(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "env").write_text("FLEETPULSE_IMAGE=fleetpulse:test\n")
    named = [word for name in ["docker-compose.yml", *files] for word in ("--file", name)]
    command: list[str | Path] = [
        require_tool("docker-compose"),
        "--env-file",
        str(tmp_path / "env"),
        *named,
        "config",
        "--quiet",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_variable_has_one_default() -> None:
    assert [name for name, default in DEFAULTS.items() if default is None] == []
    assert {(match["name"], match["default"]) for match in VARIABLE.finditer(TEXT)} == set(DEFAULTS.items())


def test_example_settings_are_the_variables_with_their_defaults() -> None:
    """Each is a comment, so that a copy of the file changes nothing."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    shown = dict(re.findall(r"^#(\w+)=(.*)$", "\n".join(lines), re.MULTILINE))
    assert shown == DEFAULTS


def test_settings_of_the_master_have_the_defaults_of_its_command() -> None:
    defaults = {str(option.envvar): option.default for option in master_command.params}
    shared = DEFAULTS.keys() & defaults.keys()
    assert len(shared) >= 7
    assert {name: DEFAULTS[name] for name in shared} == {
        name: "" if defaults[name] is None else str(defaults[name]) for name in shared
    }


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_limits_on_memory_and_processes(service: str) -> None:
    assert SERVICES[service]["mem_limit"]
    assert SERVICES[service]["pids_limit"] == 512


@pytest.mark.parametrize("service", SERVICES)
def test_every_image_is_pinned(service: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", SERVICES[service]["image"])


def test_image_has_the_version_of_the_code_and_is_built_once() -> None:
    (version,) = re.findall(r'^    version="(.*)",$', (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert {SERVICES[service]["image"] for service in OWN_SERVICES} == {f"fleetpulse:{version}"}
    assert [service for service in SERVICES if "build" in SERVICES[service]] == ["ca"]
    # It is not pulled: docker-compose 1.29 builds in the order of dependencies, and v2 has pull_policy.
    assert "ca" in SERVICES["master"]["depends_on"]
    assert [service for service in OWN_SERVICES[2:] if "master" not in SERVICES[service]["depends_on"]] == []
    assert {SERVICES[service]["pull_policy"] for service in OWN_SERVICES[1:]} == {"never"}


def test_base_image_is_an_argument_with_one_default() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (default,) = re.findall(r"^ARG PYTHON_IMAGE=(.*)$", dockerfile, re.MULTILINE)
    assert default == DEFAULTS["PYTHON_IMAGE"] == SERVICES["ca"]["build"]["args"]["PYTHON_IMAGE"]
    assert re.fullmatch(r"python:3\.\d+-slim", default)
    assert {line.split()[1] for line in dockerfile.splitlines() if line.startswith("FROM")} == {"${PYTHON_IMAGE}"}


def test_image_copies_existing_files_and_runs_without_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile, re.MULTILINE)
    sources = [source for sources in copied for source in sources.split()]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    included = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert included == {source.split("/")[0] for source in sources}
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE)[-1] == "fleetpulse"


@pytest.mark.parametrize("service", SERVICES)
def test_every_port_is_on_loopback(service: str) -> None:
    assert [port for port in SERVICES[service].get("ports", []) if not str(port).startswith("127.0.0.1:")] == []
    assert "network_mode" not in SERVICES[service]


def test_every_mounted_file_exists_and_is_read_only() -> None:
    files = [mount for mount in MOUNTS if mount[1].startswith(".")]
    assert len(files) >= 5
    assert [mount for mount in files if mount[3:] != ("ro",) or not (ROOT / mount[1]).exists()] == []


def test_other_mounts_are_volumes_or_the_docker_socket() -> None:
    others = [mount for mount in MOUNTS if not mount[1].startswith(".")]
    socket = "/var/run/docker.sock"
    assert [mount[:3] for mount in others if mount[1].startswith("/")] == [("worker", socket, socket)]
    assert {mount[1] for mount in others if not mount[1].startswith("/")} == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("service", RUNNING_SERVICES)
def test_service_has_a_health_check_and_restarts(service: str) -> None:
    content = SERVICES[service]
    assert content["restart"] == "unless-stopped"
    assert content["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}
    assert content["healthcheck"]["test"][0] == "CMD"
    assert "curl" not in content["healthcheck"]["test"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_no_privileges(service: str) -> None:
    content = SERVICES[service]
    assert content["cap_drop"] == ["ALL"]
    assert content["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in content


def test_services_start_in_order() -> None:
    order = {
        service: {name: how["condition"] for name, how in content.get("depends_on", {}).items()}
        for service, content in SERVICES.items()
    }
    healthy = "service_healthy"
    assert order == {
        "ca": {},
        "master": {"ca": "service_completed_successfully"},
        "worker": {"master": healthy},
        "simulate": {"master": healthy},
        "prometheus": {"master": healthy, "alertmanager": "service_started"},
        "alertmanager": {},
        "grafana": {"prometheus": healthy},
    }


def test_only_the_ca_writes_join_tokens_and_each_worker_has_its_own() -> None:
    mounts = [mount for mount in MOUNTS if mount[1] == "join-tokens"]
    assert {service: mount[1:] for service, *mount in mounts} == {
        "ca": ["/var/lib/fleetpulse-join"],
        "worker": ["/var/lib/fleetpulse-join", "ro"],
        "simulate": ["/var/lib/fleetpulse-join", "ro"],
    }
    assert "/var/lib/fleetpulse-join" in (ROOT / "Dockerfile").read_text()
    script = SERVICES["ca"]["entrypoint"][-1]
    for service in ("worker", "simulate"):
        assert SERVICES[service]["environment"]["FLEETPULSE_JOIN_FILE"] == f"/var/lib/fleetpulse-join/{service}"
        assert f"> {service}\n" in script


def test_readers_find_their_token() -> None:
    mounts = [mount for mount in MOUNTS if mount[1] == "read-token"]
    assert {service: mount[1:] for service, *mount in mounts} == {
        "ca": ["/var/lib/fleetpulse-read"],
        "worker": ["/var/lib/fleetpulse-read", "ro"],
        "simulate": ["/var/lib/fleetpulse-read", "ro"],
        "prometheus": ["/etc/prometheus/credentials", "ro"],
    }
    assert "0755 /var/lib/fleetpulse-read" in (ROOT / "Dockerfile").read_text()
    assert "--role read" in SERVICES["ca"]["entrypoint"][-1]
    scraping = yaml.safe_load((ROOT / "monitoring/prometheus.compose.yml").read_text())["scrape_configs"]
    asking = [scraping[0], *scraping[1]["http_sd_configs"]]
    assert [one["authorization"] for one in asking] == [{"credentials_file": "credentials/token"}] * 2


def test_prometheus_finds_its_rules_the_master_and_alertmanager() -> None:
    mounts = {target: source for service, source, target, *_ in MOUNTS if service == "prometheus"}
    scraping = yaml.safe_load((ROOT / mounts["/etc/prometheus/prometheus.yml"]).read_text())
    assert scraping["rule_files"] == ["rules/*.yml"]
    assert list((ROOT / mounts["/etc/prometheus/rules"]).glob("*.yml"))
    alertmanagers = scraping["alerting"]["alertmanagers"]
    static = [
        config for job in [*scraping["scrape_configs"], *alertmanagers] for config in job.get("static_configs", [])
    ]
    named = [target for config in static for target in config["targets"]]
    named += [
        found[1]
        for job in scraping["scrape_configs"]
        for discovery in job.get("http_sd_configs", [])
        if (found := re.match(r"http://([^/]+)/", discovery["url"]))
    ]
    assert len(named) >= 2
    assert [target for target in named if target not in listening()] == []


def test_grafana_finds_its_provisioning_and_allows_anonymous_viewers() -> None:
    mounts = {source: target for service, source, target, *_ in MOUNTS if service == "grafana"}
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/fleetpulse.yml").read_text())["providers"]
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("http://") in listening()
    environment = SERVICES["grafana"]["environment"]
    assert (environment["GF_AUTH_ANONYMOUS_ENABLED"], environment["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    home = Path(environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(mounts["./grafana/dashboards"])
    assert (ROOT / "grafana/dashboards" / home.name).exists()


def listening() -> set[str]:
    """Returns each service with each port of its container."""
    return {
        f"{service}:{str(port).rpartition(':')[2]}"
        for service, content in SERVICES.items()
        for port in content.get("ports", [])
    }


@pytest.mark.parametrize(("password", "creates"), [("", "without an administrator"), ("a secret", "with a secret")])
def test_grafana_has_an_administrator_only_with_a_password(password: str, creates: str, tmp_path: Path) -> None:
    """Runs the entry point with another script instead of the image's."""
    shell, flag, script = SERVICES["grafana"]["entrypoint"]
    own = tmp_path / "run.sh"
    own.write_text(
        "#!/bin/sh\n"
        'if [ "$GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION" = true ]; then echo without an administrator\n'
        "else echo with $GF_SECURITY_ADMIN_PASSWORD; fi\n"
    )
    own.chmod(0o755)
    result = subprocess.run(
        [shell, flag, script.replace("$$", "$").replace("/run.sh", str(own))],
        env={"GF_SECURITY_ADMIN_PASSWORD": password}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == creates.replace("a secret", password)
