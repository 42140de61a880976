#!/usr/bin/env bash
# On a TPU host: has the command save and end, and waits for it.
. ~/albert_jax/launch/alive.sh
is_alive || exit 0
echo "$boot_id" > "$home/stopping"
kill -TERM "$(cut -d ' ' -f 1 "$home/pid")"
while is_alive; do sleep 0.5; done
