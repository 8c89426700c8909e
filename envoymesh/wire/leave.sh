# How an Envoy is left by those who send it requests. What it is made to tell of itself ends with its process.
LEFT=
ACTIVE='/stats?filter=%5Ehttp%5C.ingress_http%5C.downstream_rq_active%24'

# asked [ADDRESS/]PORT METHOD PATH: puts the HTTP answer into ANSWER; no process is started to learn that nothing listens.
asked() {
    local at=127.0.0.1/$1
    ANSWER=
    case $1 in */*) at=$1 ;; esac
    { exec 3<>"/dev/tcp/$at"; } 2>/dev/null || return
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$2" "$3" 2>/dev/null >&3 &&
        ANSWER=$(timeout 3 cat <&3 | tr -d '\r\0')
    exec 3>&-
}

# leave PORT SECONDS WITHIN: the front answers health checks with 503 for so long, and finishes what it has then.
leave() {
    asked "$1" POST /healthcheck/fail || return 0 # none that runs has clients
    LEFT=$1
    sleep "$2"
    idle "$1" "$3"
}

# come_back PORT: takes back what `leave` has told.
come_back() { asked "$1" POST /healthcheck/ok || :; }

# nobody_left: takes it back wherever the script has told it.
nobody_left() { [ -z "$LEFT" ] || come_back "$LEFT"; }

# idle PORT WITHIN: waits until no request has been seen for a second, or the time is over. For a moment after a front
# was told to send no more, one of its workers may not know it yet.
idle() {
    local end=$((SECONDS + $2)) quiet=0
    while [ "$SECONDS" -lt "$end" ] && [ "$quiet" -lt 10 ]; do
        asked "$1" GET "$ACTIVE"
        case $ANSWER in *'downstream_rq_active: '[1-9]*) quiet=0 ;; *) quiet=$((quiet + 1)) ;; esac
        sleep 0.1
    done
}
