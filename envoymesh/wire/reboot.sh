# Boots a host again once it has finished what it has. Runs as root.
set -u
export LC_ALL=C
trap '' HUP INT PIPE

# booted: tells this start of the host from every other, also of one that shares its kernel.
booted() {
    local stat
    read -r stat </proc/1/stat
    set -- ${stat##*) }
    frame booted "$(cat /proc/sys/kernel/random/boot_id)/${20}"
}

has_lock() { is_held && [ "$WRITER" = "$1" ]; }

# reboot RUN PORT SECONDS WITHIN ENTRY: only as long as the login lasts, with which the lock ends.
reboot() {
    if [ "$3" -gt 0 ]; then leave "$2" "$3" "$4"; else idle "$2" "$4"; fi
    if ! has_lock "$1"; then
        nobody_left
        frame end lost
        exit
    fi
    note "done" "$5" 2>/dev/null
    frame end reboots
    systemctl reboot
}
