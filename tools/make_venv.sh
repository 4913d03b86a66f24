#!/bin/sh
# make_venv.sh PYTHON FOLDER: a fresh virtual environment, or one line that says what this machine lacks.
set -eu
python=$1
folder=$2

fail() {
    echo "FleetPulse: $1" >&2
    exit 1
}

# The test runs in the Python in question, so it keeps to words that every Python understands.
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found=missing
    fail "Python 3.11 or newer is needed and '$python' is $found. Install one and name it: make ... PYTHON=python3.13"
}

# Debian splits ensurepip off; without this, `-m venv` leaves half an environment behind.
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    name=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    fail "'$python' cannot make virtual environments. On Debian or Ubuntu: apt-get install $name"
}

exec "$python" -m venv --clear "$folder"
