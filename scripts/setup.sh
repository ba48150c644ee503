#!/usr/bin/env bash
# Installs the Debian packages that this project needs. Changes nothing when they are all there.

set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: scripts/setup.sh [--dev] [--help]

Installs the Debian 12 packages needed to build, serve and try out images. Asks nothing, may be run
again at any time, and needs no root when nothing is missing.

  --dev     also what the tests, the sanitizer presets and the linters need
  --help    this text
USAGE
}

# Building and installing.
build_packages=(
  ca-certificates
  cmake
  g++
  git
  libblkid-dev
  libcli11-dev
  libcpp-httplib-dev
  libext2fs-dev
  libfmt-dev
  libfuse3-dev
  libgrpc++-dev
  libisal-dev
  liblz4-dev
  libmount-dev
  libnbd-dev
  libnl-genl-3-dev
  libprotobuf-dev
  libre2-dev
  libsqlite3-dev
  libssl-dev
  libzstd-dev
  nbdkit
  nbdkit-plugin-dev
  ninja-build
  nlohmann-json3-dev
  perl
  pkg-config
  protobuf-compiler
  protobuf-compiler-grpc
  zlib1g-dev
)

# Making file systems and looking at images as a client does: scripts/quickstart.sh uses these.
client_packages=(
  e2fsprogs
  fuse3
  libnbd-bin
  mount
  qemu-utils
  util-linux
)

# Tests, sanitizers, linters.
dev_packages=(
  acl
  attr
  busybox-static
  clang-19
  clang-format-19
  clang-tidy-19
  containerd
  cpio
  curl
  docker-registry
  erofs-utils
  fio
  gnuplot-nox
  golang-github-containerd-containerd-dev
  golang-go
  jq
  kmod
  libarchive-tools
  libbenchmark-dev
  libclang-rt-19-dev
  libgmock-dev
  libgtest-dev
  llvm-19
  lz4
  nbd-client
  procps
  python3
  python3-libnbd
  python3-lz4
  python3-zstandard
  qemu-system-x86
  runc
  shellcheck
  skopeo
  strace
  umoci
  xfsprogs
  zstd
)

packages=("${build_packages[@]}" "${client_packages[@]}")
for argument in "$@"; do
  case "$argument" in
    --dev) packages+=("${dev_packages[@]}") ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      printf 'setup.sh: unknown argument %s\n\n' "$argument" >&2
      usage >&2
      exit 2
      ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  printf 'setup.sh: this is no Debian system; install what corresponds to these packages:\n' >&2
  printf '  %s\n' "${packages[*]}" >&2
  exit 1
fi

is_installed() {
  [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done

if ((${#missing[@]} == 0)); then
  printf 'setup.sh: all %d packages are installed\n' "${#packages[@]}"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  elif command -v sudo >/dev/null && [[ -t 0 && -t 2 ]]; then
    as_root=(sudo)
  else
    printf 'setup.sh: %d packages are missing and only root can install them. Run as root:\n' \
      "${#missing[@]}" >&2
    printf '  apt-get update && apt-get install -y --no-install-recommends %s\n' \
      "${missing[*]}" >&2
    exit 1
  fi
fi

# Waits for another apt-get rather than failing, and leaves changed configuration files alone.
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get \
    --option DPkg::Lock::Timeout=300 --option Dpkg::Options::=--force-confold \
    --option Acquire::Retries=3 --quiet "$@" </dev/null
}

printf 'setup.sh: installing %d packages: %s\n' "${#missing[@]}" "${missing[*]}"
# A package source that cannot be reached need not be the one that has what is missing.
apt update || printf 'setup.sh: apt-get update failed; trying with the lists there are\n' >&2
apt install --yes --no-install-recommends "${missing[@]}"
