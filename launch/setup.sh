#!/usr/bin/env bash
# On a TPU host: installs the lock, mounts the bucket $1 (gs://NAME), copies the corpus $2 (gs://…).
set -euo pipefail
cd ~/albert_jax
bucket=${1:-}
corpus=${2:-}

python=
for name in python3.13 python3.12 python3.11; do
  if command -v "$name" > /dev/null && "$name" -c 'import ensurepip, venv' 2> /dev/null; then
    python=$name
    break
  fi
done
# A fresh machine may still be installing updates of its own.
apt_get() { sudo apt-get -o DPkg::Lock::Timeout=600 --yes --quiet "$@"; }
if [ -z "$python" ]; then
  # The images have 3.10.
  apt_get update
  apt_get install python3.11 python3.11-venv make
  python=python3.11
fi
make install PYTHON="$python" TPU=1

. launch/alive.sh
mkdir -p "$home"
echo "$bucket" > "$home/bucket"
if [ -n "$bucket" ]; then
  if ! command -v gcsfuse > /dev/null; then
    # The images lack it, and Ubuntu has no package of it.
    version=${GCSFUSE_VERSION:-2.5.1}
    from=https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$version
    curl --fail --silent --show-error --location -o /tmp/gcsfuse.deb \
      "$from/gcsfuse_${version}_amd64.deb"
    apt_get install /tmp/gcsfuse.deb
  fi
  sudo mkdir -p /mnt/bucket
  mountpoint -q /mnt/bucket || sudo chown "$(id -un)" /mnt/bucket
  # keep_running.sh mounts it again before every start: a restart of the host undoes it.
  mount_bucket
fi
if [ -n "$corpus" ]; then
  mkdir -p ~/corpus
  gcloud storage rsync --recursive "$corpus" ~/corpus
fi
