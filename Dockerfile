# One image for the master, the worker and the simulated fleet: `docker run fleetpulse master`, `... worker`, `... simulate`.
# The base can be any Debian-like image with Python 3.11 or later.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
# pip stays in its own virtual environment. The image gets only the environment without pip.
COPY requirements/build.txt requirements/
RUN python3 -m venv tools \
    && tools/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && python3 -m venv --without-pip /opt/fleetpulse
# Before the code, so that a change of the code does not download them again. Only wheels: there is no compiler.
COPY requirements/runtime.txt requirements/
RUN tools/bin/python -m pip --python /opt/fleetpulse/bin/python \
    install --no-cache-dir --only-binary :all: --require-hashes -r requirements/runtime.txt
COPY setup.py pyproject.toml MANIFEST.in LICENSE ./
COPY requirements/runtime.in requirements/
COPY src src
COPY proto proto
COPY worker worker
COPY master master
RUN tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/python -m pip --python /opt/fleetpulse/bin/python install --no-deps --no-index wheels/*.whl

FROM ${PYTHON_IMAGE}
# A fixed uid, for the owner of volumes.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/fleetpulse --shell /usr/sbin/nologin fleetpulse \
    && install --directory --owner fleetpulse --group fleetpulse --mode 0700 /var/lib/fleetpulse /var/lib/fleetpulse-join \
    && install --directory --owner fleetpulse --group fleetpulse --mode 0755 /var/lib/fleetpulse-read
COPY --from=build /opt/fleetpulse /opt/fleetpulse
ENV PATH=/opt/fleetpulse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLEETPULSE_DATA_DIR=/var/lib/fleetpulse
WORKDIR /var/lib/fleetpulse
USER fleetpulse
ENTRYPOINT ["fleetpulse"]
CMD ["--help"]
