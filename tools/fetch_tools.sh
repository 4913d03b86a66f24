#!/usr/bin/env bash
# fetch_tools.sh [FOLDER]: puts the programs that tests and benchmarks run into FOLDER/bin (default: .tools/bin).
#
# Needs no root and changes nothing outside FOLDER: it downloads and unpacks Debian packages without installing them, so
# no service starts. It skips programs on PATH. It lists the programs that it cannot get and still ends with status 0:
# the tests that need them are skipped by name.
set -euo pipefail

mkdir -p "${1:-$(dirname "$0")/../.tools}"
cd "${1:-$(dirname "$0")/../.tools}"
here=$PWD

# Prints the packages with a program and its libraries.
packages_of() {
    case $1 in
        prometheus | promtool) echo prometheus ;;
        prometheus-alertmanager | amtool) echo prometheus-alertmanager ;;
        prometheus-pushgateway) echo prometheus-pushgateway ;;
        prometheus-node-exporter) echo prometheus-node-exporter ;;
        wrk) echo wrk libluajit-5.1-2 ;;
        jq) echo jq libjq1 libonig5 ;;
        dockerd) echo docker.io containerd runc tini libdevmapper1.02.1 libseccomp2 ;;
        docker-registry) echo docker-registry ;;
        busybox) echo busybox-static ;;
        postgres) packages_of_postgres ;;
        chromium) packages_of_chromium ;;
        docker-compose) packages_of_compose ;;
        debootstrap) echo debootstrap ;;
        iptables-nft) echo iptables libip4tc2 libip6tc2 libxtables12 libnftnl11 libmnl0 ;;
    esac
}
programs=(prometheus promtool prometheus-alertmanager amtool prometheus-pushgateway
    prometheus-node-exporter wrk jq postgres chromium docker-compose)
# Only a Docker Engine and its programs need root. Containers need iptables for their name server.
if ((EUID == 0)); then
    programs+=(dockerd docker-registry busybox debootstrap iptables-nft)
fi

# The version of this Debian release, and the libraries that the machine lacks. Not LLVM, which is large and only
# compiles queries.
packages_of_postgres() {
    apt --simulate install --no-install-recommends postgresql |
        sed -nE '/^Inst lib(llvm|z3|perl|c6)/d; s/^Inst (postgresql-(client-)?[0-9]+|lib[^ ]*) .*/\1/p'
}

# With the modules that the machine's Python lacks.
packages_of_compose() {
    apt --simulate install --no-install-recommends docker-compose |
        sed -nE 's/^Inst (docker-compose|python3-[^ ]*) .*/\1/p'
}

# With the libraries that the machine lacks.
packages_of_chromium() {
    apt --simulate install --no-install-recommends chromium |
        sed -nE '/^Inst (libc6|libstdc|libgcc|xdg-)/d; s/^Inst (chromium[^ ]*|lib[^ ]*) .*/\1/p'
}

# Prints settings for an unpacked program that looks for its files where they would be installed.
settings_of() {
    case $1 in
        docker-compose) echo 'export PYTHONPATH="$root/usr/lib/python3/dist-packages"' ;;
        debootstrap) echo 'export DEBOOTSTRAP_DIR="$root/usr/share/debootstrap"' ;;
        iptables-nft) echo 'export XTABLES_LIBDIR="$folder/xtables"' ;;
        chromium) echo 'LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$folder/pulseaudio' ;;
        prometheus-alertmanager) redirect_templates; echo 'exec 9<"$root/usr/share/prometheus/alertmanager"' ;;
    esac
}

# Debian's Alertmanager has a fixed folder for its templates. The copy here gets a path of the same length that leads
# to file descriptor 9.
redirect_templates() {
    LC_ALL=C sed -i 's#/usr/share/prometheus/alertmanager#/dev/fd/9/././././././././././././#g' \
        "$here/root/$(unpacked prometheus-alertmanager)"
}

# Prints the path of an installed program, or nothing. Debian does not put PostgreSQL on PATH.
installed() {
    local path
    for path in /usr/lib/postgresql/*/bin/"$1"; do
        if [[ -x $path ]]; then
            echo "$path"
            return
        fi
    done
    command -v "$1"
}

# Prints the path of an unpacked program, or nothing.
unpacked() {
    local path
    # Chromium's program comes before its script, which looks for the installed one.
    for path in root/usr/lib/chromium/"$1" root/usr/bin/"$1" root/usr/sbin/"$1" root/bin/"$1" \
        root/usr/lib/postgresql/*/bin/"$1"; do
        if [[ -x $path ]]; then
            echo "${path#root/}"
            return
        fi
    done
}

# Runs apt-get with all its files in this folder and the machine's configuration (mirrors, proxies, keys). Sandbox::User
# is set because apt's download user (_apt) may not be able to read this folder.
lists=()
apt() {
    apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=1 -o Acquire::http::Timeout=20 \
        -o "Dir::Cache=$here/apt/cache" -o "Dir::Log=$here/apt" ${lists[@]+"${lists[@]}"} "$@" 2>>"$here/apt/log"
}

# Fetches package lists into this folder, once per run, if the machine has none or outdated ones.
update_once() {
    if ((${#lists[@]})); then
        return 1
    fi
    mkdir -p "$here/apt/lists/partial"
    lists=(-o "Dir::State::Lists=$here/apt/lists" -o APT::Update::Error-Mode=any)
    apt update
}

download() {
    local packages
    read -rd '' -a packages <<<"$(packages_of "$1")" || true  # read fails at the end of its input
    ((${#packages[@]})) && (cd "$here/apt/debs" && apt download "${packages[@]}")
}

# Writes a launcher, because the loader does not find the unpacked libraries.
write_launcher() {
    cat >"$here/bin/$1" <<LAUNCHER
#!/bin/sh
root=\$(CDPATH= cd -- "\$(dirname -- "\$0")/../root" && pwd)
for folder in "\$root"/usr/lib/*-linux-*; do
    LD_LIBRARY_PATH=\$folder\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
$(settings_of "$1")
exec "\$root/$(unpacked "$1")" "\$@"
LAUNCHER
    chmod +x "$here/bin/$1"
}

wanted=()
for program in "${programs[@]}"; do
    if [[ ! -x bin/$program ]] && ! installed "$program" >/dev/null; then
        wanted+=("$program")
    fi
done

if ((${#wanted[@]})) && ! command -v apt-get >/dev/null; then
    echo "tools: this is no Debian or Ubuntu; install these yourself, on PATH: ${wanted[*]}"
    exit 0
fi

mkdir -p bin root apt/cache/archives/partial
missing=()
for program in ${wanted[@]+"${wanted[@]}"}; do
    if [[ -z $(unpacked "$program") ]]; then
        rm -rf apt/debs apt/unpacked
        mkdir apt/debs
        if ! download "$program" && ! { update_once && download "$program"; }; then
            missing+=("$program")
            continue
        fi
        # Unpacks into another folder first: after an interrupt, a partial program must not look complete.
        for package in apt/debs/*.deb; do
            dpkg-deb --extract "$package" apt/unpacked
        done
        cp -a --link --force apt/unpacked/. root/
    fi
    write_launcher "$program"
done

if ((${#missing[@]})); then
    echo "tools: could not get ${missing[*]}; what apt said:"
    sort -u apt/log | sed 's/^/    /'
fi
rm -rf apt
for program in "${programs[@]}"; do
    if [[ -x bin/$program ]]; then
        echo "tools: $program in $here/bin"
    elif path=$(installed "$program"); then
        echo "tools: $program is $path"
    fi
done
