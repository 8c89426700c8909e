#!/bin/bash
# hot-restart ADMIN_PORT SHARED COMMAND...: starts an Envoy, by a command that lacks but its epoch, that takes over from
# the one that serves, without losing a request. Runs as the reload of a unit, so as its user and in its cgroup. If the
# new one does not come to serve, it is ended, and the old one goes on. SHARED is the memory that they share.
set -u
export LC_ALL=C
ADMIN=$1 SHARED=$2
shift 2

fail() {
    echo "hot restart: $1" >&2
    exit 1
}

# others: whether an Envoy runs besides the main process. Each unit has a user of its own, and sees nobody else's.
others() {
    local commands=(/proc/[0-9]*/cmdline) # before grep runs, which has the word in its own
    grep -lzxe --restart-epoch "${commands[@]}" 2>/dev/null | grep -qvx "/proc/$MAINPID/cmdline"
}

# starting: the last eight bytes are Envoy's flags, and there is but one: that an Envoy has not started up yet.
starting() { [ -n "$(tail -c 8 "$SHARED" | tr -d '\0')" ]; }

# serves EPOCH: an Envoy of this epoch has started up, and answers at the admin port.
serves() {
    local answer
    { exec 3<>"/dev/tcp/127.0.0.1/$ADMIN"; } 2>/dev/null || return
    printf 'GET /server_info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    answer=$(timeout 3 cat <&3)
    exec 3>&-
    [[ $answer == *'"state": "LIVE"'* && $answer == *"\"restart_epoch\": $1,"* ]]
}

# give_up WHY: ends the new one. It cannot take back its flag, for which no other one could take over ever after.
give_up() {
    kill -KILL "$NEW" 2>/dev/null
    while kill -0 "$NEW" 2>/dev/null; do sleep 0.1; done
    dd if=/dev/zero of="$SHARED" bs=8 count=1 seek=$(($(stat -c %s "$SHARED") / 8 - 1)) conv=notrunc status=none
    fail "the new Envoy (epoch $EPOCH) $1; the old one goes on, and needs a reload if its admin interface is gone"
}

"$@" --mode validate || fail "the configuration is not valid; nothing was begun"

# Of three Envoys, the oldest would be ended at once, whatever it still has to answer.
while others || starting; do
    [ $SECONDS -lt 60 ] || fail "another Envoy has not ended, or not started up, for a minute; nothing was begun"
    sleep 0.2
done

mapfile -d '' -t OLD <"/proc/$MAINPID/cmdline"
EPOCH=$((OLD[-1] + 1)) # the epoch is the last word of the command
exec 4>&1
NEW=$("$@" --restart-epoch "$EPOCH" >&4 4>&- & echo $!) # from a subshell, so that systemd becomes its parent
BEGAN=$SECONDS
until serves "$EPOCH"; do
    kill -0 "$NEW" 2>/dev/null || give_up "has ended"
    [ $((SECONDS - BEGAN)) -lt 60 ] || give_up "did not come to serve"
    sleep 0.1
done
exec systemd-notify --pid="$NEW" --status="restart epoch $EPOCH"
