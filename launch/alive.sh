# Sourced on a TPU host. is_alive: whether the process that runs the command is there; a restarted
# host may have given its number to another.
home=~/.albert_jax
boot_id=$(cat /proc/sys/kernel/random/boot_id)

is_alive() {
  local pid boot
  read -r pid boot 2> /dev/null < "$home/pid" && [ "$boot" = "$boot_id" ] && kill -0 "$pid" 2> /dev/null
}

# Mounts the bucket, which a restart undoes. Without it, a run would begin anew on the host's disk.
mount_bucket() {
  local bucket
  bucket=$(cat "$home/bucket" 2> /dev/null)
  [ -z "$bucket" ] || mountpoint -q /mnt/bucket \
    || gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "${bucket#gs://}" /mnt/bucket
}
