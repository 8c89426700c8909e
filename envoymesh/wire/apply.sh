# Makes true what the calls say. Runs as root; the calls come first on standard input (one line with their length in
# bytes, then the calls), then the content that they read, in their order. Until `commit` no file that is live has
# been replaced; from there on the script ends what it began even when the operator's side is gone, and puts back
# what it replaced when a unit does not become ready. After `settle` nothing is put back: the new serves.
set -u
export LC_ALL=C
umask 077
trap '' HUP INT PIPE
WORK=/run/envoymesh/$$
ERRORS=$WORK/errors
STAGED=()
LIVE=()
REPLACED=()
STARTED=()
RUNNING=()
RELOADED=()
PHASE=staging
ADMIN=
ENTRY=

at() {
    STEP=$1
    frame at "$1"
}

finish() {
    nobody_left
    [ ${#STAGED[@]} -gt 0 ] && rm -rf -- "${STAGED[@]}"
    [ -z "$ENTRY" ] || [ ! -d "$KEPT" ] || note "$1" "$ENTRY" || frame unnoted "$(tail -n 1 "$ERRORS" | base64 -w0)"
    rm -rf -- "$WORK"
    frame end "$1"
    exit 0
}

# abort CODE: says at which step and why, with the last errors; puts back what was replaced.
abort() {
    frame problem "$1" "$STEP" "$(tail -n 12 "$ERRORS" | tail -c 3000 | base64 -w0)"
    case $PHASE in
        staging) finish refused ;;
        settled) finish unfinished ;;
    esac
    put_back && finish restored
    finish stuck
}

# begin GENERATION RUN: one apply at a time, and only on a host that is as it was when it was read. A run that has taken
# the host's lock must still have it.
begin() {
    local other
    exec 9>"${WORK%/*}/lock" || return
    if ! flock -n 9 && ! flock -w 60 9; then
        echo "another apply has been at work for a minute" >&2
        abort lock/held
    fi
    if [ -n "$2" ] && { ! is_held || [ "$WRITER" != "$2" ]; }; then
        echo "the lock was released, or it expired" >&2
        abort lock/lost
    fi
    [ "$1" = "$(stat -c '%i.%.Y' "$KEPT/manifest" 2>/dev/null)" ] || finish moved
    for other in "${WORK%/*}"/*/; do [ "$other" = "$WORK/" ] || rm -rf -- "$other"; done
    rm -rf -- "$KEPT/previous" && mkdir -p "$KEPT/artifacts" "$KEPT/previous" && chmod 0755 "$KEPT" &&
        chmod 0711 "${WORK%/*}" "$WORK"
}

# audited ENTRY: what the audit log will tell of this apply, however it ends.
audited() { ENTRY=$1; }

user() {
    getent group "$1" >/dev/null || groupadd --system -- "$1" || return
    getent passwd "$1" >/dev/null ||
        useradd --system --gid "$1" --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin -- "$1"
}

# directory PATH OWNER GROUP MODE: a link to a directory is as good as one. With fewer than five digits, chmod would
# leave a directory its bits for the group of what is made in it.
directory() { mkdir -p -- "$1" && chown "$2:$3" -- "$1" && chmod "0$4" -- "$1"; }

# receive SIZE SHA256 FILE: takes SIZE bytes of standard input.
receive() {
    local sum
    head -c "$1" >>"$3" && sum=$(sha256sum <"$3") || return
    [ "${sum%% *}" = "$2" ] || { echo "arrived with another digest than $2" >&2; return 65; }
}

listing() { find "$1" -printf '%P %s %T@ %m %U\n'; }

# unpack KIND SIZE SHA256 PATH: unpacks SIZE bytes of standard input while they arrive.
unpack() {
    local digest sum -
    set -o pipefail
    exec 4> >(sha256sum >"$WORK/sum")
    digest=$!
    head -c "$2" | tee /dev/fd/4 2>/dev/null | case $1 in
        file) gzip -dc >"$4" && chmod 0755 "$4" ;;
        tree) mkdir -m 0755 "$4" && tar -xz -C "$4" --no-same-owner ;;
    esac || return
    exec 4>&-
    wait "$digest" && read -r sum _ <"$WORK/sum" || return
    [ "$sum" = "$3" ] || { echo "arrived with another digest than $3" >&2; return 65; }
}

# artifact PATH KIND DIGEST SIZE SHA256
artifact() {
    local new=$1.envoymesh stamp
    stamp=$KEPT/artifacts/$(printf %s "$1" | sha256sum | cut -c1-64)
    rm -rf -- "$new" "$new.old" "$stamp" && STAGED+=("$new" "$new.old") && unpack "$2" "$4" "$5" "$new" &&
        sync -f "$new" || return
    [ ! -d "$1" ] || mv -T -- "$1" "$new.old" || return # the rename below replaces a file, but no directory
    mv -f -T -- "$new" "$1" && rm -rf -- "$new.old" || return # now: a host that dies before the end would keep it
    printf '%s\n%s' "$3" "$(listing "$1")" >"$stamp"
}

# stage PATH OWNER GROUP MODE SIZE SHA256: beside the path, so that the rename stays on one file system.
stage() {
    local new=${1%/*}/.${1##*/}.envoymesh
    rm -rf -- "$new" && STAGED+=("$new") && : >"$new" && chown "$2:$3" -- "$new" && chmod "$4" -- "$new" || return
    receive "$5" "$6" "$new" && LIVE+=("$1")
}

# validate USER SIZE SHA256 COMMAND...: the word {staged} of the command is the path of the content.
validate() {
    local staged=$WORK/validated.yaml user=$1 size=$2 sum=$3 word command=()
    shift 3
    rm -f -- "$staged" && receive "$size" "$sum" "$staged" && chown "$user" "$staged" || return
    for word in "$@"; do command+=("${word/"{staged}"/$staged}"); done
    timeout 60 runuser -u "$user" -- "${command[@]}" >"$WORK/output" 2>&1 </dev/null || { tail -n 12 "$WORK/output" >&2; return 1; }
}

# commit [PATH...]: what is staged for these paths, or all that is left, goes live. From the first rename on the host is
# ours to finish or to put back.
commit() {
    local i path now=() staged=()
    for i in "${!LIVE[@]}"; do
        path=${LIVE[$i]}
        [ $# -eq 0 ] || is_among "$path" "$@" || continue
        [ -e "${path%/*}/.${path##*/}.envoymesh" ] || continue
        if is_directory "$path" && [ -n "$(ls -A -- "$path")" ]; then
            echo "$path is a directory with something in it" >&2
            return 1
        fi
        if [ -e "$path" ] || [ -L "$path" ]; then cp -a -T -- "$path" "$KEPT/previous/$i" || return; fi
        now+=("$i")
        staged+=("${path%/*}/.${path##*/}.envoymesh")
    done
    [ ${#staged[@]} -eq 0 ] || sync -- "${staged[@]}" || return
    PHASE=committed
    for i in "${now[@]}"; do
        path=${LIVE[$i]}
        ! is_directory "$path" || rmdir -- "$path" || return
        REPLACED+=("$i")
        mv -f -T -- "${path%/*}/.${path##*/}.envoymesh" "$path" || return
    done
}

is_among() {
    local one=$1 other
    shift
    for other; do [ "$one" != "$other" ] || return 0; done
    return 1
}

is_directory() { [ -d "$1" ] && [ ! -L "$1" ]; }

# remember ADDRESS...: what an apply manages, so that a later one can remove what is no longer asked for.
remember() { printf '%s\0' "$@" >"$KEPT/.manifest" && sync "$KEPT/.manifest" && mv -f -T "$KEPT/.manifest" "$KEPT/manifest"; }

# generation SIZE SHA256 ABOUT: what the host is to have, and why.
generation() {
    local new=$KEPT/generations/new
    rm -rf -- "$new" && STAGED+=("$new") && mkdir -p "$new" && printf %s "$3" >"$new/about" || return
    receive "$1" "$2" "$new/desired" && sync "$new"/*
}

# keep COUNT: what the host has now becomes its newest generation, one of COUNT that are kept, unless that one is the same.
keep() {
    local kept=$KEPT/generations numbers last
    mapfile -t numbers < <(numbered)
    last=${numbers[*]: -1}
    [ "$(digest_of "$kept/new/desired")" != "$(digest_of "$kept/${last:-0}/desired")" ] || return 0
    mv -T -- "$kept/new" "$kept/$((${last:-0} + 1))" || return
    while [ ${#numbers[@]} -ge "$1" ]; do
        rm -rf -- "${kept:?}/${numbers[0]}" || return
        numbers=("${numbers[@]:1}")
    done
}

digest_of() { sha256sum 2>/dev/null <"$1"; }

numbered() { (cd "$KEPT/generations" && printf '%s\n' [0-9]* | grep -x '[0-9]*' | sort -n); }

# drop NUMBER: this generation was no good, and the host has what it had before it.
drop() { rm -rf -- "$KEPT/generations/$1"; }

# rename_again PATH...: Envoy reads a file when it is replaced by a rename, and then only.
rename_again() {
    local path new
    for path in "$@"; do
        new=${path%/*}/.${path##*/}.envoymesh
        cp -a -T -- "$path" "$new" && mv -f -T -- "$new" "$path" || return
    done
}

# enable UNIT...: without a reload, which takes longer than all else here and is done before.
enable() { systemctl enable --quiet --no-reload -- "$@"; }

reload() { systemctl daemon-reload; }

# is_wanted UNIT: it runs, or would at the next boot.
is_wanted() { systemctl is-active --quiet -- "$1" || systemctl is-enabled --quiet -- "$1" 2>/dev/null; }

# restart UNIT: starts it when it does not run.
restart() {
    if is_wanted "$1"; then RUNNING+=("$1"); else STARTED+=("$1"); fi
    systemctl reset-failed -- "$1" 2>/dev/null
    enable "$1" && systemctl restart -- "$1"
}

# hot_restart UNIT ADDRESS/PORT: another process takes over from the one that runs, or that one goes on.
hot_restart() { RELOADED+=("$1") && ADMIN=$2 && enable "$1" && systemctl reload -- "$1"; }

# loaded ADDRESS/PORT TEXT...: every TEXT is a line of Envoy's text stats.
loaded() {
    local text at=$1
    shift
    [ $# -eq 0 ] && return
    ADMIN=$at
    asked "$at" GET '/stats?type=TextReadouts'
    for text in "$@"; do
        case $'\n'$ANSWER$'\n' in *$'\n'"$text"$'\n'*) ;; *) MISSING=$text; return 1 ;; esac
    done
}

restarts() { systemctl show -p NRestarts --value -- "$1"; }

# ready UNIT ADDRESS/PORT PATH SECONDS TEXT...
ready() {
    local unit=$1 at=$2 path=$3 deadline=$((SECONDS + $4)) looked=$SECONDS status='' before
    shift 4
    MISSING=
    before=$(restarts "$unit")
    while [ $SECONDS -le $deadline ]; do
        asked "$at" GET "$path"
        status=${ANSWER%%$'\n'*}
        case $status in "HTTP/1.1 200 "*) loaded "$at" "$@" && return ;; esac
        if [ $SECONDS -gt $looked ]; then
            looked=$SECONDS
            [ "$(restarts "$unit")" -le $((before + 3)) ] || break
        fi
        sleep 0.05
    done
    {
        echo "$unit: ${at/\//:}$path answered: ${status:-nothing}${MISSING:+; not loaded: $MISSING}"
        journalctl -u "$unit" -n 8 -o cat --no-pager | cut -c1-300
    } >&2
    return 1
}

# settle: all that runs is ready. What fails from here on is only what nobody asks for any more.
settle() { PHASE=settled; }

# put_back: what was replaced comes back by rename, what was not there goes, units run as they did. What refers to
# another file was replaced after it, so it comes back before it.
put_back() {
    local i n path new unit bad=0
    [ ${#STARTED[@]} -eq 0 ] || systemctl disable --quiet --no-reload -- "${STARTED[@]}"
    for ((n = ${#REPLACED[@]} - 1; n >= 0; n--)); do
        i=${REPLACED[$n]}
        path=${LIVE[$i]}
        new=${path%/*}/.${path##*/}.envoymesh
        if [ -e "$KEPT/previous/$i" ] || [ -L "$KEPT/previous/$i" ]; then
            { rm -rf -- "$new" && cp -a -T -- "$KEPT/previous/$i" "$new" && came_back "$new" "$path"; } || bad=1
        else
            rm -f -- "$path" || bad=1
        fi
    done
    [ ${#STARTED[@]} -eq 0 ] || { taken_back && systemctl stop -- "${STARTED[@]}"; }
    systemctl daemon-reload || bad=1
    [ ${#RUNNING[@]} -eq 0 ] || { enable "${RUNNING[@]}" && systemctl restart -- "${RUNNING[@]}"; } || bad=1
    for unit in "${RELOADED[@]}"; do enable "$unit" && goes_back "$unit" || bad=1; done
    return $bad
}

# taken_back: waits until Envoy has loaded the files that came back, or for three seconds.
taken_back() {
    local i key version wanted=() deadline=$((SECONDS + 3))
    [ -n "$ADMIN" ] || return 0
    for i in "${REPLACED[@]}"; do
        [ -f "$KEPT/previous/$i" ] && read -r key version <"$KEPT/previous/$i" || continue
        [ "$key" != version_info: ] || wanted+=("$version")
    done
    while [ ${#wanted[@]} -gt 0 ] && [ $SECONDS -le $deadline ]; do
        asked "$ADMIN" GET '/stats?type=TextReadouts'
        case $ANSWER in *": ${wanted[-1]}"*) unset 'wanted[-1]' ;; *) sleep 0.05 ;; esac
    done
}

# goes_back UNIT: by a hot restart, too. Where that fails, what serves now is not what served before, and must end.
goes_back() { as_before "$1" || systemctl reload -- "$1" || systemctl restart -- "$1"; }

# as_before UNIT: nothing was begun: what serves was started from the file that came back, and has its admin interface.
as_before() {
    local pid stamp
    pid=$(systemctl show -p MainPID --value -- "$1") && stamp=$(grep -o 'ENVOYMESH_STAMP=.*' "/etc/systemd/system/$1") &&
        grep -qzxF "$stamp" "/proc/$pid/environ" && asked "$ADMIN" GET /ready && [ -n "$ANSWER" ]
}

# came_back NEW PATH: a rename puts no directory where a file is.
came_back() {
    ! is_directory "$1" || rm -f -- "$2" || return
    mv -f -T -- "$1" "$2"
}

# await_idle UNIT SECONDS: it gets no more requests, and finishes those that it has: waits until nobody has had a
# connection to it for half a second. For a moment after an Envoy has told another endpoint, its workers may not know it.
await_idle() {
    local quiet=0 deadline=$((SECONDS + $2))
    while [ $quiet -lt 5 ] && [ $SECONDS -le $deadline ]; do
        if is_busy "$1"; then quiet=0; else quiet=$((quiet + 1)); fi
        sleep 0.1
    done
}

# is_busy UNIT: somebody has a connection to an address that its main process listens on. The table is read at once: from
# line to line it would be another one.
is_busy() {
    local pid sockets table at state inode own=' ' others=()
    pid=$(systemctl show -p MainPID --value -- "$1") && [ "${pid:-0}" -gt 0 ] || return
    sockets=$(find "/proc/$pid/fd" -lname 'socket:*' -printf '%l ') || return
    table=$(<"/proc/$pid/net/tcp") || return
    while read -r _ at _ state _ _ _ _ _ inode _; do
        case $state in
            0A) case $sockets in *"[$inode]"*) own+="$at " ;; esac ;;
            01) others+=("$at") ;;
        esac
    done <<<"$table"
    for at in "${others[@]}"; do case $own in *" $at "*) return 0 ;; esac; done
    return 1
}

# remove_unit UNIT: stops it; its file goes with `remove_file`, once everything else has succeeded.
remove_unit() {
    is_wanted "$1" && RUNNING+=("$1")
    systemctl disable --quiet --now -- "$1" || [ ! -e "/etc/systemd/system/$1" ]
}

# A directory where a file was, or a link where a directory was, is somebody else's.
remove_file() { is_directory "$1" || rm -f -- "$1"; }

remove_artifact() { rm -rf -- "$1" "$KEPT/artifacts/$(printf %s "$1" | sha256sum | cut -c1-64)"; }

remove_directory() { [ -L "$1" ] || rmdir --ignore-fail-on-non-empty -- "$1" 2>/dev/null || [ ! -e "$1" ]; }

remove_user() { ! getent passwd "$1" >/dev/null || userdel -- "$1"; }

forget() { rm -rf -- "$KEPT"; }

mkdir -p "$WORK" && exec 2>"$ERRORS" || exit 1
STEP=0
read -r LENGTH && CALLS=$(head -c "$LENGTH") && [ ${#CALLS} -eq "$LENGTH" ] && eval "$CALLS"
abort apply/cut-off
