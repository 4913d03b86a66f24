#!/usr/bin/env bash
# make_base_image.sh FILE: the files of a Debian or Ubuntu like this machine's, with Python and no more than it needs, as a
# tar for `docker import`. It stands in for python:3.13-slim where no image registry can be reached. For root; takes one to
# four minutes. Nothing is left behind but FILE, which is there once it is complete.
set -euo pipefail

# In memory, because dpkg waits for the disk at every file; and with mounts of its own, which end with this process.
if [[ ${2-} != inside ]]; then
    exec unshare --mount -- "$0" "$1" inside
fi
file=$(realpath "$1")
folder=$(mktemp -d)
trap 'umount --lazy "$folder"; rmdir "$folder"; rm -f "$file.part"' EXIT
mount -t tmpfs -o mode=0755,size=1g tmpfs "$folder"
root=$folder/root

source /etc/os-release
# The mirror that apt uses here.
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$VERSION_CODENAME //p" | sort -u | head -n 1)
PATH=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin:$PATH
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$VERSION_CODENAME" "$root" "$mirror"

rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}/*
# Who is trusted here is trusted there, so that pip reaches from a container what it reaches from here.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
tar --create --file "$file.part" --directory "$root" .
mv "$file.part" "$file"
