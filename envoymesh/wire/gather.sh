# Reads what the plan compares, and changes nothing. Runs as root. The calls that follow this text name what to read.
set -u
export LC_ALL=C
KEPT=/var/lib/envoymesh

frame() { printf '\036EM %s\n' "$*"; }

packed() { base64 -w0; }

platform() {
    local python='' libc path
    for path in /usr/bin/python3.[0-9] /usr/bin/python3.[0-9][0-9]; do
        [ ! "$path" -ef /usr/bin/python3 ] || python=${path##*/python} # the one that the units name
    done
    [ -n "$python" ] ||
        python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
    frame platform "$HOSTTYPE" "${libc##* }" "$python"
}

# manifest: what tells the last apply from every other, and what it managed.
manifest() {
    frame manifest "$(stat -c '%i.%.Y' "$KEPT/manifest" 2>/dev/null)" "$(base64 -w0 "$KEPT/manifest" 2>/dev/null)"
}

users() {
    local name
    while IFS=: read -r name _; do frame user "$name"; done < <(getent passwd "$@")
}

declare -A INDEX=()
LISTED='%n\0%a:%U:%G:%F\0'
# A path that is absent makes stat complain and print nothing: absence is an answer here.
paths() {
    number "$@"
    listed path < <(stat --printf "$LISTED" -- "$@" 2>/dev/null)
}

# directories PATH...: a link to a directory is as good as one.
directories() {
    number "$@"
    listed directory < <(stat -L --printf "$LISTED" -- "$@" 2>/dev/null)
}

number() {
    local path i=0
    for path; do INDEX[$path]=$((i++)); done
}

listed() {
    local path said
    while IFS= read -r -d '' path && IFS= read -r -d '' said; do frame "$1" "${INDEX[$path]}" "$said"; done
}

declare -A WANTED=()
# files (PATH SHA256)...: digests of all, content of those that differ (for the diff), 256 KiB of it at most; no content
# where SHA256 is empty: that one is secret.
files() {
    local path sum i=0 there=()
    while [ $# -gt 0 ]; do
        INDEX[$1]=$((i++)) WANTED[$1]=$2
        [ ! -f "$1" ] || [ -L "$1" ] || there+=("$1")
        shift 2
    done
    [ ${#there[@]} -gt 0 ] || return
    while IFS= read -r -d '' sum; do
        path=${sum:66}
        sum=${sum:0:64}
        if [ -z "${WANTED[$path]}" ] || [ "${WANTED[$path]}" = "$sum" ]; then
            frame file "${INDEX[$path]}" "$sum"
        else
            frame file "${INDEX[$path]}" "$sum" "$(head -c 262144 -- "$path" | packed)"
        fi
    done < <(sha256sum -z -b -- "${there[@]}")
}

# artifact INDEX PATH STAMP: its digest when it is as it was pushed; nothing when it is absent or was touched since.
artifact() {
    local stamp='' digest='' file=$KEPT/artifacts/$3
    [ ! -e "$2" ] || [ ! -r "$file" ] || IFS= read -r -d '' stamp <"$file"
    if [ -n "$stamp" ]; then
        digest=${stamp%%$'\n'*}
        [ "$stamp" = "$digest"$'\n'"$(find "$2" -printf '%P %s %T@ %m %U\n' 2>/dev/null)" ] || digest=
    fi
    frame artifact "$1" "$digest"
}

# units NAME...: what systemd says, and what it was started from in the environment of the main process.
units() {
    local line pid word
    while IFS= read -r line; do
        frame unit "$line"
        case $line in
            MainPID=0) ;;
            MainPID=*)
                pid=${line#MainPID=}
                [ -r "/proc/$pid/environ" ] || continue
                while IFS= read -r -d '' word; do
                    case $word in ENVOYMESH_STAMP=* | ENVOYMESH_TAKEOVER=*) frame unit "$word" ;; esac
                done <"/proc/$pid/environ"
                ;;
        esac
    done < <(systemctl show -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState -p NeedDaemonReload \
        -p MainPID -- "$@")
}

# http INDEX PORT PATH: the raw answer of a port of the loopback; nothing when it refuses or hangs.
http() {
    frame http "$1" "$({ exec 3<>"/dev/tcp/127.0.0.1/$2" &&
        printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$3" >&3 &&
        exec timeout 3 base64 -w0 <&3; } 2>/dev/null)"
}

# dial INDEX ADDRESS PORT: whether something accepts a connection from here.
dial() {
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>/dev/null
    frame dial "$1" $?
}

# generations: what is known of each that is kept.
generations() {
    local kept
    for kept in "$KEPT"/generations/[0-9]*; do
        [ ! -d "$kept" ] || frame generation "${kept##*/}" "$(packed <"$kept/about")"
    done
    frame end
}

# generation NUMBER: what the host had.
generation() { frame content "$(packed <"$KEPT/generations/$1/desired")"; }
