# Reads what the plan compares, and changes nothing. Runs as root. The calls that follow this text name what to read.
set -u
export LC_ALL=C
KEPT=/var/lib/envoymesh

frame() { printf '\036EM %s\n' "$*"; }

packed() { base64 -w0; }

platform() {
    local python
    python=$(readlink -f /usr/bin/python3) # the one that the units name
    case $python in
        */python3.[0-9]*) python=${python##*/python} ;;
        *) python=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ;;
    esac
    frame platform "$(uname -m)" "$(getconf GNU_LIBC_VERSION 2>/dev/null | tr -dc 0-9.)" "$python"
}

# manifest: what tells the last apply from every other, and what it managed.
manifest() { frame manifest "$(stat -c '%i.%.Y' "$KEPT/manifest" 2>/dev/null)" "$(packed 2>/dev/null <"$KEPT/manifest")"; }

users() { frame users "$(getent passwd "$@" | packed)"; }

LISTED='%a:%U:%G:%F:%n\0'
# A path that is absent makes stat complain and print nothing: absence is an answer here.
paths() { frame paths "$(stat --printf "$LISTED" -- "$@" 2>/dev/null | packed)"; }

# directories PATH...: a link to a directory is as good as one.
directories() { frame paths "$(stat -L --printf "$LISTED" -- "$@" 2>/dev/null | packed)"; }

declare -A WANTED=()
# files (PATH SHA256)...: digests of all, content of those that differ (for the diff), 256 KiB of it at most.
files() {
    local path sum
    while [ $# -gt 0 ]; do
        WANTED[$1]=$2
        shift 2
    done
    while IFS= read -r -d '' sum; do
        path=${sum:66}
        sum=${sum:0:64}
        if [ "${WANTED[$path]}" = "$sum" ]; then
            frame file "$(printf %s "$path" | packed)" "$sum"
        else
            frame file "$(printf %s "$path" | packed)" "$sum" "$(head -c 262144 -- "$path" | packed)"
        fi
    done < <(for path in "${!WANTED[@]}"; do [ -f "$path" ] && [ ! -L "$path" ] && printf '%s\0' "$path"; done |
        xargs -0 -r sha256sum -z -b --)
}

fingerprint() { find "$1" -printf '%P %s %T@ %m %U\n' 2>/dev/null | sort | sha256sum | cut -c1-64; }

# artifact INDEX PATH: its digest when it is as it was pushed; nothing when it is absent or was touched since.
artifact() {
    local digest='' print='' stamp
    stamp=$KEPT/artifacts/$(printf %s "$2" | sha256sum | cut -c1-64)
    [ -e "$2" ] && [ -r "$stamp" ] && read -r digest print <"$stamp"
    [ -n "$print" ] && [ "$print" = "$(fingerprint "$2")" ] || digest=
    frame artifact "$1" "$digest"
}

# units NAME...: what systemd says, and the stamp in the environment of the main process.
units() {
    local line pid='' stamp word
    while IFS= read -r line; do
        case $line in
            MainPID=*) pid=${line#MainPID=} ;;
            Id=*)
                stamp=
                if [ "${pid:-0}" != 0 ] && [ -r "/proc/$pid/environ" ]; then
                    while IFS= read -r -d '' word; do
                        case $word in ENVOYMESH_STAMP=*) stamp=${word#*=} ;; esac
                    done <"/proc/$pid/environ"
                fi
                frame stamp "${line#Id=}" "$stamp"
                ;;
        esac
    done < <(systemctl show -p MainPID -p Id -- "$@")
    frame units "$(systemctl show -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState \
        -p NeedDaemonReload -- "$@" | packed)"
}

# http INDEX PORT PATH: the raw answer of a port of the loopback; nothing when it refuses or hangs.
http() {
    frame http "$1" "$({ exec 3<>"/dev/tcp/127.0.0.1/$2" &&
        printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$3" >&3 &&
        timeout 3 cat <&3; } 2>/dev/null | packed)"
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
