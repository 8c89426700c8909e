# What a run that changes a host needs besides reading it: the lock, and the line in the audit log.
KEPT=/var/lib/envoymesh
LOCK=/run/envoymesh/writer
AUDIT=$KEPT/audit
AUDIT_BYTES=1048576

frame() { printf '\036EM %s\n' "$*" 2>/dev/null; }

# connection: the process of sshd that serves this login, and ends with it.
connection() {
    local pid=$$ stat
    while [ "$pid" -gt 1 ]; do
        read -r stat <"/proc/$pid/stat" || return
        case ${stat#*(} in sshd* | dropbear*) echo "$pid"; return ;; esac
        stat=${stat##*) ? }
        pid=${stat%% *}
    done
    echo "no sshd is among the parents of this login: nothing would end the lock with it" >&2
    return 1
}

# lock RUN SECONDS RECORD: this run alone changes the host, until its connection ends, or for so many seconds.
# A lock that another has is an answer, and nothing is read then.
lock() {
    local error
    error=$(exec 2>&1 && take "$@") && return
    case $error in
        held) frame lock held "$(base64 -w0 <"$LOCK")" ;;
        *) frame lock failed "$(base64 -w0 <<<"$error")" ;;
    esac
    frame end
    exit 0
}

# take RUN SECONDS RECORD: a lock whose connection has just ended is free within a moment. One that this run has, it has
# for so long from now on; as long as it was, its record is written over, so that nobody finds none.
take() {
    local sshd now
    sshd=$(connection) || return
    umask 077
    printf -v now '%(%s)T' -1
    if is_held && [ "$WRITER" = "$1" ] && [ "$SSHD" = "$sshd" ]; then
        printf '%s\n' "$HOLDER $sshd $1 $SINCE $((now + $2))" "$3" 1<>"$LOCK" && is_held && return
    fi
    mkdir -p "${LOCK%/*}" && exec 8>>"$LOCK" || return
    flock -w 1 8 || { echo held; return 1; }
    printf -v now '%(%s)T' -1
    hold "$sshd" "$((now + $2))" &
    printf '%s\n' "$! $sshd $1 $now $((now + $2))" "$3" >"$LOCK" && return
    kill "$!"
    return 1
}

# hold SSHD UNTIL: keeps descriptor 8 as long as this process of sshd is there, or until the time that its record has now.
# It wakes up, but starts nothing.
# By `exec` bash keeps no copy of what it redirects: one would keep the connection's channel open.
hold() {
    local end=$2 now=0 holder said
    exec </dev/null >/dev/null 2>&1
    trap '' HUP INT PIPE
    cd / && exec 7<> <(:) || return
    while [ "$now" -lt "$end" ] && [ -d "/proc/$1" ]; do
        read -r -t 0.2 -u 7
        printf -v now '%(%s)T' -1
        if read -r holder _ _ _ said <"$LOCK" && [ "$holder" = "$BASHPID" ]; then end=$said; fi
    done
}

# is_held: whether somebody has the lock, and then who: HOLDER, SSHD, WRITER (a run), SINCE.
is_held() { { read -r HOLDER SSHD WRITER SINCE _ <"$LOCK"; } 2>/dev/null && [ "/proc/$HOLDER/fd/8" -ef "$LOCK" ]; }

# give_back RUN: nobody has the lock any more; with a RUN, only if that has it.
give_back() {
    local tries
    is_held || return
    [ -z "$1" ] || [ "$WRITER" = "$1" ] || return
    frame lock released "$(base64 -w0 <"$LOCK")"
    kill "$HOLDER"
    for ((tries = 0; tries < 100; tries++)); do
        is_held || return 0
        sleep 0.02
    done
}

# lock_status: who has the lock, and whether an apply is at work.
lock_status() {
    if is_held; then frame lock held "$(base64 -w0 <"$LOCK")"; fi
    frame end
}

# note ENDING ENTRY: appends a line, a JSON object. A line that does not fit is taken away again.
note() {
    local size new=$AUDIT.new
    size=$(stat -c %s "$AUDIT" 2>/dev/null || echo 0)
    if [ "$size" -gt "$AUDIT_BYTES" ]; then
        tail -c $((AUDIT_BYTES / 2)) "$AUDIT" | sed 1d >"$new" && mv -f -T "$new" "$AUDIT" || { rm -f "$new"; return 1; }
        size=$(stat -c %s "$AUDIT")
    fi
    [ -z "$(tail -c 1 "$AUDIT" 2>/dev/null)" ] || printf '\n' >>"$AUDIT"
    printf '{"at": "%s", "ending": "%s", %s\n' "$(date -u +%FT%TZ)" "$1" "${2#\{}" >>"$AUDIT" && return
    truncate -s "$size" "$AUDIT"
    return 1
}

# audit COUNT: the last lines of the log.
audit() {
    [ ! -e "$AUDIT" ] || frame audit "$(tail -n "$1" "$AUDIT" | gzip -c | base64 -w0)"
    frame end
}
