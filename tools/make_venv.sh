#!/bin/sh
# make_venv.sh PYTHON FOLDER: makes a new virtual environment, or prints one line that says what this machine lacks.
set -eu
python=$1
folder=$2

fail() {
    echo "FleetPulse: $1" >&2
    exit 1
}

# This runs in the tested Python, so it uses only syntax that every Python version supports.
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || found=missing
    fail "Python 3.11 or newer is needed and '$python' is $found. Install one and name it: make ... PYTHON=python3.13"
}

# Debian packages ensurepip separately. Without it, `-m venv` leaves half an environment behind.
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    name=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    fail "'$python' cannot make virtual environments. On Debian or Ubuntu: apt-get install $name"
}

exec "$python" -m venv --clear "$folder"
