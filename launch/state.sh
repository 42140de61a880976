#!/usr/bin/env bash
# On a TPU host: where its command is. "lost" says running, but nothing runs: the host was restarted.
. ~/albert_jax/launch/alive.sh
state=$(cat "$home/state" 2>/dev/null || echo none)
if [ "$state" = running ] && ! is_alive; then
  state=lost
fi
echo "state=$state"
