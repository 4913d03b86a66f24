#!/usr/bin/env bash
# make_base_image.sh FILE: makes a tar for `docker import` with a minimal Debian or Ubuntu of this machine's release and
# Python. It replaces python:3.13-slim if no image registry is reachable. Needs root; takes one to four minutes. Leaves
# only FILE behind, once it is complete.
set -euo pipefail

# In memory, because dpkg waits for the disk at every file. The mount namespace ends with this process.
if [[ ${2-} != inside ]]; then
    exec unshare --mount -- "$0" "$1" inside
fi
file=$(realpath "$1")
folder=$(mktemp -d)
trap 'umount --lazy "$folder"; rmdir "$folder"; rm -f "$file.part"' EXIT
mount -t tmpfs -o mode=0755,size=1g tmpfs "$folder"
root=$folder/root

source /etc/os-release
# The mirror that apt uses on this machine.
mirror=$(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$VERSION_CODENAME //p" | sort -u | head -n 1)
PATH=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin:$PATH
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$VERSION_CODENAME" "$root" "$mirror"

rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,locale,man}/*
# The image trusts the same CAs as this machine, so pip reaches the same package index from a container.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
tar --create --file "$file.part" --directory "$root" .
mv "$file.part" "$file"
