"""A client in another network namespace: asks a master over HTTP and gRPC, and prints what it answered."""

import json
import sys

import requests

from tests.e2e.grpc_client import GrpcClient, Refusal, a_heartbeat


def main(host: str, http_port: str, grpc_port: str) -> None:
    url = f"http://{host}:{http_port}"
    with requests.Session() as session:
        session.trust_env = False
        answers = [session.get(url + path, timeout=10) for path in ("/health", "/telemetry")]
        answers.append(session.post(f"{url}/api/tasks", json={"docker_image": "busybox"}, timeout=10))
    with GrpcClient(f"{host}:{grpc_port}") as client:
        result = client.send_heartbeat(a_heartbeat("by-hand"))
    grpc = [result.code.name, result.details] if isinstance(result, Refusal) else ["OK", ""]
    print(json.dumps({"http": [answer.status_code for answer in answers], "detail": answers[-1].text, "grpc": grpc}))


if __name__ == "__main__":
    main(*sys.argv[1:])
