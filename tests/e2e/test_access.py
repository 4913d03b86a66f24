"""Access to a real master: tokens created and revoked while it runs, and refused starts."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
import trustme

from tests.e2e.grpc_client import GrpcClient, new_worker_id
from tests.e2e.masters import READY_SECONDS, Master, started_master
from tests.e2e.processes import FLEETPULSE, CompletedCommand, Processes, RunningProcess, wait_until_gone
from tests.e2e.raw import RawConnection
from tests.e2e.waiting import eventually
from tests.ports import LOCALHOST, free_port

pytestmark = pytest.mark.e2e

TASK = {"docker_image": "busybox"}


@pytest.fixture
def master(processes: Processes) -> Iterator[Master]:
    master = started_master(processes)
    yield master
    master.close()
    master.assert_no_errors()


def cli(processes: Processes, *arguments: str, **env: str) -> CompletedCommand:
    return processes.run(FLEETPULSE, *arguments, **env)


def make_token(processes: Processes, name: str, *flags: str) -> str:
    made = cli(processes, "token", "create", name, *flags)
    assert made.code == 0, made.err
    return made.out.strip()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def statuses(master: Master, headers: dict[str, str]) -> list[int]:
    """The statuses of a read, a submit, and a request that needs the role admin."""
    return [
        master.get("/workers", headers=headers).status_code,
        master.session.post(f"{master.url}/api/tasks", json=TASK, headers=headers, timeout=10).status_code,
        master.session.delete(f"{master.url}/api/workers/nobody", headers=headers, timeout=10).status_code,
    ]


def test_first_token_closes_the_api(master: Master, processes: Processes) -> None:
    (line,) = master.log_lines("may use all of this master")
    assert "fleetpulse token create" in line
    assert statuses(master, {}) == [200, 201, 404]

    submit = make_token(processes, "ci", "--role", "submit")
    eventually(lambda: master.get("/workers").status_code == 401)
    assert statuses(master, {}) == [401, 401, 401]
    assert statuses(master, bearer(submit)) == [200, 201, 403]
    assert statuses(master, bearer(submit[:-1])) == [401, 401, 401]
    assert master.get("/health").status_code == 200
    assert master.get("/").status_code == 200
    read, admin = make_token(processes, "grafana"), make_token(processes, "root", "--role", "admin", "--no-expiry")
    eventually(lambda: statuses(master, bearer(read)) == [200, 403, 403])
    assert statuses(master, bearer(admin)) == [200, 201, 404]
    assert master.get("/metrics", auth=("prometheus", read)).status_code == 200

    listed = json.loads(cli(processes, "token", "list", "--json").out)
    assert [(one["name"], one["role"], one["state"]) for one in listed] == [
        ("ci", "submit", "active"), ("grafana", "read", "active"), ("root", "admin", "active"),
    ]  # fmt: skip
    assert "digest" not in listed[0]
    assert cli(processes, "token", "revoke", "ci").code == 0
    eventually(lambda: master.get("/workers", headers=bearer(submit)).status_code == 401)
    kept = (processes.folder / "data" / "tokens.json").read_text()
    shown = master.process.err + kept + json.dumps(listed)
    assert not [secret for secret in (submit, read, admin) if secret in shown or secret[12:] in shown]


def test_forwarded_headers_are_ignored(master: Master) -> None:
    lines = ("SCRIPT_NAME: /x", "PATH_INFO: /x", "REMOTE_USER: root", "X-Forwarded-Proto: https")
    for line in lines:
        with RawConnection(master.http_port) as raw:
            assert raw.get("/workers", line).status == 200
            # If either of the two contradictory headers were believed, the second request would be refused.
            assert raw.get("/workers", line, "X-Forwarded-Proto: http", "X-Forwarded-Ssl: on").status == 200


def test_malformed_credentials_and_hosts_are_refused(master: Master, processes: Processes) -> None:
    for host in ("localhost:evil.example", "localhost:", ":"):
        assert master.get("/workers", headers={"Host": host}).status_code == 421
    make_token(processes, "ci")
    eventually(lambda: master.get("/workers").status_code == 401)
    for header in (b"Bearer fp_\xed\xa0\x80", b"Bearer \xff", b"Basic 7aCAOu2ggA==", b"Basic eDrtoIA=", b"Basic ="):
        assert master.get("/workers", headers={"Authorization": header}).status_code == 401
    body = b'{"token": "fp_secret\\ud800"}'
    json_headers = {"Content-Type": "application/json"}
    assert master.session.post(f"{master.url}/api/session", body, headers=json_headers, timeout=10).status_code == 401


def test_session_behind_a_tls_proxy_has_a_secure_cookie(master: Master, processes: Processes) -> None:
    secret = make_token(processes, "ci")
    eventually(lambda: master.get("/workers").status_code == 401)
    host = master.url.removeprefix("http://")

    def cookie(scheme: str) -> str:
        headers = {"Origin": f"{scheme}://{host}"}
        answer = master.session.post(f"{master.url}/api/session", json={"token": secret}, headers=headers, timeout=10)
        return answer.headers["Set-Cookie"]

    assert "Secure" in cookie("https")
    assert "Secure" not in cookie("http")


def test_open_streams_end_with_their_token(master: Master, processes: Processes) -> None:
    token, other = make_token(processes, "ci", "--role", "submit"), make_token(processes, "grafana")
    eventually(lambda: statuses(master, bearer(other)) == [200, 403, 403])
    submitted = master.session.post(f"{master.url}/api/tasks", json=TASK, headers=bearer(token), timeout=10).json()
    paths = ["/telemetry/stream", f"/api/tasks/{submitted['task_id']}/logs?follow=true"]
    with requests.Session() as page, GrpcClient(master.target) as client, ExitStack() as opened:
        assert page.post(f"{master.url}/api/session", json={"token": other}, timeout=10).status_code == 200

        def events(session: requests.Session, path: str, headers: dict[str, str]) -> Iterator[str]:
            url = master.url + path
            answer = opened.enter_context(session.get(url, headers=headers, stream=True, timeout=10))
            assert answer.status_code == 200
            return answer.iter_lines(decode_unicode=True)

        of_token = [events(requests.Session(), path, bearer(token)) for path in paths]
        of_other = [events(requests.Session(), path, bearer(other)) for path in paths]
        of_page = [events(page, path, {}) for path in paths]
        assert cli(processes, "token", "revoke", "ci").code == 0
        for lines in of_token:
            assert last_event(lines) == ("event: problem", 401)
        origin = {"Origin": master.url}
        assert page.delete(f"{master.url}/api/session", headers=origin, timeout=10).status_code == 204
        for lines in of_page:
            assert last_event(lines) == ("event: problem", 401)
        client.stream().register(new_worker_id())
        assert cli(processes, "cancel", submitted["task_id"], FLEETPULSE_URL=master.url).code == 0
        assert "event: update" in of_other[0]
        assert "event: end" in of_other[1]


def last_event(lines: Iterator[str]) -> tuple[str, int]:
    """The kind of the last event of a stream, and its status."""
    kind, data = [line for line in lines if line][-2:]
    return kind, json.loads(data.removeprefix("data: "))["status"]


def test_new_web_process_knows_the_tokens(master: Master, processes: Processes) -> None:
    secret = make_token(processes, "ci")
    web = master.web_process()
    web.kill()
    eventually(lambda: master.web_process() != web and master.is_healthy(), READY_SECONDS)
    assert statuses(master, {})[0] == 401
    assert statuses(master, bearer(secret))[0] == 200


def test_lost_tokens_do_not_open_the_master(master: Master, processes: Processes) -> None:
    secret = make_token(processes, "ci", "--role", "admin")
    eventually(lambda: statuses(master, {})[0] == 401)
    data = processes.folder / "data"
    (data / "tokens.json").unlink()
    eventually(lambda: master.get("/workers", headers=bearer(secret)).status_code == 401)
    assert statuses(master, {}) == [401, 401, 401]
    web = master.web_process()
    web.kill()
    eventually(lambda: master.web_process() != web and master.is_healthy(), READY_SECONDS)
    assert statuses(master, {}) == [401, 401, 401]
    assert master.log_lines("there are no tokens, and this master was closed by one")
    listed = cli(processes, "token", "list")
    assert "`fleetpulse token open` opens it" in listed.out + listed.err

    # Both files lost: the running master remembers.
    (data / "access.json").unlink()
    (data / "tokens.json").unlink(missing_ok=True)
    other = make_token(processes, "other")
    eventually(lambda: master.get("/workers", headers=bearer(other)).status_code == 200)
    (data / "access.json").unlink()
    (data / "tokens.json").unlink()
    eventually(lambda: master.get("/workers", headers=bearer(other)).status_code == 401)
    assert statuses(master, {}) == [401, 401, 401]


def test_token_open_opens_the_master_again(master: Master, processes: Processes) -> None:
    make_token(processes, "ci")
    eventually(lambda: statuses(master, {})[0] == 401)
    assert "active tokens (ci); revoke them first" in cli(processes, "token", "open").error_line()
    assert cli(processes, "token", "revoke", "ci").code == 0
    assert statuses(master, {})[0] == 401
    opened = cli(processes, "token", "open")
    assert (opened.code, "open to its own user and root" in opened.out) == (0, True)
    eventually(lambda: statuses(master, {}) == [200, 201, 404])
    (entry,) = master.json("/api/audit?action=open_access")
    assert entry["source"] == "cli"
    make_token(processes, "ci")
    eventually(lambda: statuses(master, {})[0] == 401)


def test_cli_of_the_owner_needs_no_token(master: Master, processes: Processes, tmp_path: Path) -> None:
    secret = make_token(processes, "ci")
    eventually(lambda: master.get("/workers").status_code == 401)
    assert cli(processes, "workers", FLEETPULSE_URL=master.url).code == 0
    proxy = f"http://{LOCALHOST}:{free_port()}"
    assert cli(processes, "workers", FLEETPULSE_URL=master.url, http_proxy=proxy, all_proxy=proxy).code == 0
    stranger = {"FLEETPULSE_URL": master.url, "FLEETPULSE_DATA_DIR": str(tmp_path / "elsewhere")}
    refused = cli(processes, "workers", **stranger)
    assert refused.code == 1
    assert "requires a valid token" in refused.error_line()
    assert cli(processes, "workers", **stranger, FLEETPULSE_TOKEN=secret).code == 0
    (tmp_path / "token").write_text(secret + "\n")
    assert cli(processes, "workers", **stranger, FLEETPULSE_TOKEN_FILE=str(tmp_path / "token")).code == 0
    too_low = cli(processes, "drain", "rack-7", **stranger, FLEETPULSE_TOKEN=secret)
    assert too_low.code == 1
    assert "may not do that" in too_low.error_line()
    missing = cli(processes, "workers", **stranger, FLEETPULSE_TOKEN_FILE=str(tmp_path / "none"))
    assert (missing.code, "FLEETPULSE_TOKEN_FILE" in missing.error_line()) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("create", "a b"), 2, "NAME must be"),
        (("create", "ci", "--role", "root"), 2, "'root'"),
        (("create", "owner"), 2, "must not be one of anonymous, master, owner"),
        (("create", "ci", "--expires", "soon"), 2, "'soon'"),
        (("create", "ci", "--expires", "999999999999d"), 2, "at most 36500d"),
        (("create", "ci", "--expires", "99999999999999999999d"), 2, "at most 36500d"),
        (("revoke", "nobody"), 4, "there are: none"),
    ],
)
def test_token_command_refuses_invalid_arguments(
    processes: Processes, arguments: tuple[str, ...], code: int, message: str
) -> None:
    ended = cli(processes, "token", *arguments)
    assert ended.code == code
    assert message in ended.error_line()


def test_second_active_token_of_one_name_is_refused(processes: Processes) -> None:
    make_token(processes, "ci")
    assert "revoke it first" in cli(processes, "token", "create", "ci").error_line()
    assert cli(processes, "token", "revoke", "ci").code == 0
    make_token(processes, "ci")


def test_invalid_token_file_prevents_the_start(processes: Processes) -> None:
    (processes.folder / "data").mkdir()
    (processes.folder / "data" / "tokens.json").write_text("{")
    ended = cli(processes, "master", HTTP_PORT="0", GRPC_PORT="0")
    assert ended.code == 2
    assert "tokens.json is no file of tokens" in ended.error_line()


# Listening beyond loopback


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"HTTP_PORT": "0.0.0.0:0", "GRPC_PORT": "0"}, "no a token"),
        ({"HTTP_PORT": "[::]:0", "GRPC_PORT": "0"}, "no TLS"),
        ({"HTTP_PORT": "0", "GRPC_PORT": "0.0.0.0:0"}, "no TLS for workers"),
    ],
)
def test_non_loopback_listen_needs_tokens_and_tls(processes: Processes, env: dict[str, str], message: str) -> None:
    ended = cli(processes, "master", **env)
    assert ended.code == 2
    error = ended.error_line()
    assert "--insecure-network" in error
    assert message.removeprefix("no ") in error


def test_tokens_without_tls_are_not_enough_beyond_loopback(processes: Processes) -> None:
    make_token(processes, "ci")
    error = cli(processes, "master", HTTP_PORT="0.0.0.0:0", GRPC_PORT="0").error_line()
    assert "TLS (--tls-certificate" in error
    assert "a token (" not in error


def test_trusted_network_flag_allows_plain_http(processes: Processes) -> None:
    _, port = started_everywhere(processes, "--insecure-network", GRPC_PORT="0.0.0.0:0")
    url = f"http://{LOCALHOST}:{port}"
    assert _status(f"{url}/workers") == 200
    assert _status(f"{url}/workers", {"Host": "rebound.example"}) == 421
    make_token(processes, "ci")
    eventually(lambda: _status(f"{url}/workers") == 401)


def started_everywhere(processes: Processes, *flags: str, **env: str) -> tuple[RunningProcess, int]:
    """A master that listens on every address, and its port."""
    master = processes.start("master", FLEETPULSE, "master", *flags, HTTP_PORT="0.0.0.0:0", **env)
    eventually(lambda: _chosen(master.err) or not master.is_running, READY_SECONDS)
    port = _chosen(master.err)
    assert port is not None, master.err
    eventually(lambda: _listens(port), READY_SECONDS)
    return master, port


def test_rest_over_tls(processes: Processes, tmp_path: Path) -> None:
    ca = trustme.CA()
    certificate, key, root = (tmp_path / name for name in ("chain.pem", "key.pem", "root.pem"))
    issued = ca.issue_cert(LOCALHOST)
    certificate.write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    ca.cert_pem.write_to_path(str(root))
    secret = make_token(processes, "ci", "--role", "admin")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    master, port = started_everywhere(processes, *flags, GRPC_PORT="0")
    url = f"https://{LOCALHOST}:{port}"

    def status(path: str, **headers: str) -> int:
        return requests.get(url + path, headers=headers, timeout=10, verify=str(root)).status_code

    assert status("/health") == 200
    assert status("/workers") == 401
    assert status("/workers", **bearer(secret)) == 200
    signed_in = requests.post(f"{url}/api/session", json={"token": secret}, timeout=10, verify=str(root))
    cookie = signed_in.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Secure", "Path=/"))
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=10)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"http://{LOCALHOST}:{port}/health", timeout=10)
    env = {"FLEETPULSE_URL": url, "REQUESTS_CA_BUNDLE": str(root)}
    assert cli(processes, "workers", **env).code == 0
    assert "Traceback" not in master.err


def test_sighup_loads_a_valid_certificate_and_ignores_an_invalid_one(processes: Processes, tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    certificate, key, old_root, new_root = (tmp_path / name for name in ("chain.pem", "key.pem", "old.pem", "new.pem"))
    old.cert_pem.write_to_path(str(old_root))
    new.cert_pem.write_to_path(str(new_root))
    before, after = old.issue_cert(LOCALHOST), new.issue_cert(LOCALHOST)
    certificate.write_bytes(before.cert_chain_pems[0].bytes())
    key.write_bytes(before.private_key_pem.bytes())
    make_token(processes, "ci")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    master, port = started_everywhere(processes, *flags, GRPC_PORT="0")
    url = f"https://{LOCALHOST}:{port}/health"
    # The port is open before a process has read the files.
    eventually(lambda: _trusts(url, old_root), READY_SECONDS)
    (web,) = master.children()

    def error_is_logged(times: int) -> bool:
        return len(re.findall(r"The web process stays, .*chain\.pem and .*key\.pem are no", master.err)) == times

    certificate.write_bytes(after.cert_chain_pems[0].bytes())
    master.send(signal.SIGHUP)
    eventually(lambda: error_is_logged(1))
    certificate.unlink()
    master.send(signal.SIGHUP)
    eventually(lambda: error_is_logged(2))
    assert master.children() == [web]
    assert _trusts(url, old_root)

    certificate.write_bytes(after.cert_chain_pems[0].bytes())
    key.write_bytes(after.private_key_pem.bytes())
    master.send(signal.SIGHUP)
    wait_until_gone([web], READY_SECONDS)
    eventually(lambda: _trusts(url, new_root), READY_SECONDS)
    assert "Traceback" not in master.err


def test_invalid_certificate_files_prevent_the_start(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nothing")
    file = str(tmp_path / "a")
    env = {"HTTP_PORT": "0", "GRPC_PORT": "0"}
    assert "go together" in cli(processes, "master", "--tls-key", file, **env).error_line()
    both = cli(processes, "master", "--tls-key", file, "--tls-certificate", file, **env)
    assert "no certificate with its key" in both.error_line()


def _trusts(url: str, root: Path) -> bool:
    try:
        return requests.get(url, timeout=10, verify=str(root)).status_code == 200
    except requests.exceptions.ConnectionError:
        return False


def _status(url: str, headers: dict[str, str] | None = None) -> int:
    return requests.get(url, headers=headers, timeout=10).status_code


def _chosen(log: str) -> int | None:
    found = re.search(r"Listening at: https?://0\.0\.0\.0:(\d+)", log)
    return int(found[1]) if found else None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOCALHOST, port)) == 0
