#!/usr/bin/env bash
# On a TPU host: runs ~/.albert_jax/command.sh until it is finished. Started by start.sh.
# The state it leaves: running, finished, failed (a mistake, or too many crashes) or stopped.
set -u
home=~/.albert_jax
max_crashes=${ALBERT_JAX_MAX_CRASHES:-20}
pause=${ALBERT_JAX_PAUSE:-15}
cd ~/albert_jax || exit 1
is_stopping=0
child=0
trap 'is_stopping=1; [ "$child" != 0 ] && kill -TERM "$child" 2>/dev/null' TERM
crashes=0
while true; do
  bash "$home/command.sh" >> "$home/log.txt" 2>&1 &
  child=$!
  wait "$child"
  status=$?
  # A signal for this script ends the wait, but not the child.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
  done
  child=0
  if [ "$status" = 0 ]; then
    echo finished > "$home/state"
    exit 0
  fi
  if [ "$is_stopping" = 1 ]; then
    echo stopped > "$home/state"
    exit 0
  fi
  crashes=$((crashes + 1))
  # Status 2 is a person's mistake: again, it would be the same.
  if [ "$status" = 2 ] || [ "$crashes" -ge "$max_crashes" ]; then
    echo failed > "$home/state"
    exit 1
  fi
  echo "keep_running: status $status, starting again ($crashes of $max_crashes)" >> "$home/log.txt"
  sleep "$pause" &
  wait $!
  if [ "$is_stopping" = 1 ]; then
    echo stopped > "$home/state"
    exit 0
  fi
done
