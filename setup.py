"""The distribution `fleetpulse`. Only this file has the version; code reads it with `importlib.metadata`."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"


def runtime_requirements() -> list[str]:
    """Returns the requirements of requirements/runtime.in, the source of the lock files too."""
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
    # src/fleetpulse/ has links to master/, worker/ and proto/, so that they are one package and an editable install is
    # a plain path entry, which type checkers understand.
    packages=find_namespace_packages("src"),
    package_dir={"": "src"},
    package_data={
        "": ["*.pyi", "*.proto", "py.typed"],
        "fleetpulse.master.api": ["templates/*"],
        "fleetpulse.master.page": ["static/*", "templates/*"],
    },
    entry_points={
        "console_scripts": ["fleetpulse = fleetpulse.master.script:main"],
        # The command line finds its commands by these names, because master/ and worker/ do not import each other.
        "fleetpulse.commands": [
            "master = fleetpulse.master.cli:master_command",
            "up = fleetpulse.master.cli:up_command",
            "ca = fleetpulse.master.ca:ca_command",
            "worker = fleetpulse.worker.cli:worker_command",
            "simulate = fleetpulse.worker.cli:simulate_command",
            "workers = fleetpulse.master.console.workers:workers_command",
            "gpus = fleetpulse.master.console.gpus:gpus_command",
            "drain = fleetpulse.master.console.workers:drain_command",
            "undrain = fleetpulse.master.console.workers:undrain_command",
            "status = fleetpulse.master.console.status:status_command",
            "tasks = fleetpulse.master.console.tasks:tasks_command",
            "task = fleetpulse.master.console.tasks:task_command",
            "cancel = fleetpulse.master.console.tasks:cancel_command",
            "submit = fleetpulse.master.console.submit:submit_command",
            "logs = fleetpulse.master.console.logs:logs_command",
            "top = fleetpulse.master.console.top:top_command",
            "history = fleetpulse.master.console.history:history_command",
            "events = fleetpulse.master.console.events:events_command",
            "audit = fleetpulse.master.console.audit:audit_command",
            "shell = fleetpulse.master.console.shell:shell_command",
            "token = fleetpulse.master.console.token:token_command",
            "completion = fleetpulse.master.console.completion:completion_command",
        ],
    },
)
