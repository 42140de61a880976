#!/usr/bin/env bash
# On a TPU host: runs ~/.albert_jax/command.sh until it is finished. Started by start.sh.
# The state it leaves: running, finished, failed (a mistake, or too many crashes in a row) or stopped.
# A host that shuts down leaves "running", which state.sh then shows as lost.
set -u
. ~/albert_jax/launch/alive.sh
max_crashes=${ALBERT_JAX_MAX_CRASHES:-20}
pause=${ALBERT_JAX_PAUSE:-15}
cd ~/albert_jax || exit 1
is_told=0
child=0
trap 'is_told=1; [ "$child" != 0 ] && kill -TERM "$child" 2>/dev/null' TERM

end_if_told() {
  [ "$is_told" = 1 ] || return 0
  # Only stop.sh means stop: the machine's own end means that the run resumes elsewhere.
  [ "$(cat "$home/stopping" 2>/dev/null)" = "$boot_id" ] && echo stopped > "$home/state"
  exit 0
}

crashes=0
mistakes=0
while true; do
  began=$SECONDS
  if mount_bucket >> "$home/log.txt" 2>&1; then
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
  else
    status=1
    echo "keep_running: the bucket cannot be mounted" >> "$home/log.txt"
  fi
  if [ "$status" = 0 ]; then
    echo finished > "$home/state"
    exit 0
  fi
  end_if_told
  # What has run for ten minutes was no mistake and no crash like the one before.
  if [ $((SECONDS - began)) -ge 600 ]; then
    crashes=0
    mistakes=0
  fi
  crashes=$((crashes + 1))
  # Status 2 is mostly a person's mistake, but also hosts that did not meet in time.
  if [ "$status" = 2 ]; then mistakes=$((mistakes + 1)); else mistakes=0; fi
  if [ "$mistakes" -ge 3 ] || [ "$crashes" -ge "$max_crashes" ]; then
    echo failed > "$home/state"
    exit 1
  fi
  echo "keep_running: status $status, starting again ($crashes of $max_crashes)" >> "$home/log.txt"
  sleep "$pause" &
  wait $!
  end_if_told
done
