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
if [ -z "$python" ]; then
  # The images have 3.10.
  sudo apt-get update --quiet --quiet
  sudo apt-get install --yes --quiet python3.11 python3.11-venv make
  python=python3.11
fi
make install PYTHON="$python" TPU=1

if [ -n "$bucket" ] && ! mountpoint --quiet /mnt/bucket; then
  if ! command -v gcsfuse > /dev/null; then
    sudo apt-get install --yes --quiet gcsfuse || {
      echo "ERROR: this image has no gcsfuse; install Cloud Storage FUSE on it first" >&2
      exit 1
    }
  fi
  sudo mkdir -p /mnt/bucket
  sudo chown "$(id -un)" /mnt/bucket
  # Hosts must see at once what others have written.
  gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "${bucket#gs://}" /mnt/bucket
fi
if [ -n "$corpus" ]; then
  mkdir -p ~/corpus
  gcloud storage rsync --recursive "$corpus" ~/corpus
fi
