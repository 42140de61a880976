# Sourced on a TPU host: is_alive tells whether the process that runs the command is there.
# A restarted host may have given its number to another.
home=~/.albert_jax
boot_id=$(cat /proc/sys/kernel/random/boot_id)

is_alive() {
  local pid boot
  read -r pid boot 2> /dev/null < "$home/pid" && [ "$boot" = "$boot_id" ] && kill -0 "$pid" 2> /dev/null
}
