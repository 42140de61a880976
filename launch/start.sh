#!/usr/bin/env bash
# On a TPU host: keeps the command in $1 (base64) running, detached. Called by launch.tpu_vm run.
set -euo pipefail
. ~/albert_jax/launch/alive.sh
mkdir -p "$home"
while is_alive; do
  if [ "$(cat "$home/state")" = running ]; then
    echo "ERROR: a command runs here already; stop it first" >&2
    exit 3
  fi
  # It has ended, all but its process.
  sleep 0.1
done
printf %s "$1" | base64 --decode > "$home/command.sh"
rm -f "$home/stopping"
echo running > "$home/state"
setsid nohup bash ~/albert_jax/launch/keep_running.sh > /dev/null 2>&1 < /dev/null &
echo "$! $boot_id" > "$home/pid"
