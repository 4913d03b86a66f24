"""The distribution `fleetpulse`. The version is stated here only; code asks `importlib.metadata` for it."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"


def runtime_requirements() -> list[str]:
    """The names and lower bounds in requirements/runtime.in, which the lock files are made from too."""
    lines = (HERE / "requirements" / "runtime.in").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


setup(
    name="fleetpulse",
    version="0.1.0",
    description="Telemetry and Docker tasks for a fleet of machines, made for Prometheus",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The FleetPulse Authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: System :: Distributed Computing",
        "Topic :: System :: Monitoring",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    install_requires=runtime_requirements(),
    packages=find_packages(include=["master*", "worker*", "proto*"]),
    # Said outright so that an editable install is a plain path entry, which type checkers and new modules understand.
    package_dir={"": "."},
    package_data={
        "": ["*.pyi", "*.proto", "py.typed"],
        "master.api": ["templates/*"],
        "master.page": ["static/*", "templates/*"],
    },
    entry_points={
        "console_scripts": ["fleetpulse = master.script:main"],
        # The command line finds its commands here by name, because master/ and worker/ never import each other.
        "fleetpulse.commands": [
            "master = master.cli:master_command",
            "up = master.cli:up_command",
            "ca = master.ca:ca_command",
            "worker = worker.cli:worker_command",
            "simulate = worker.cli:simulate_command",
            "workers = master.console.workers:workers_command",
            "drain = master.console.workers:drain_command",
            "undrain = master.console.workers:undrain_command",
            "status = master.console.status:status_command",
            "tasks = master.console.tasks:tasks_command",
            "task = master.console.tasks:task_command",
            "cancel = master.console.tasks:cancel_command",
            "submit = master.console.submit:submit_command",
            "logs = master.console.logs:logs_command",
            "top = master.console.top:top_command",
            "history = master.console.history:history_command",
            "events = master.console.events:events_command",
            "audit = master.console.audit:audit_command",
            "shell = master.console.shell:shell_command",
            "token = master.console.token:token_command",
            "completion = master.console.completion:completion_command",
        ],
    },
)
