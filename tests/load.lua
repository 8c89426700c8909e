-- What each connection of wrk asks, and when: one thread is one connection, so a thread may sleep until a request is
-- due. Latency counts from then, not from when the one before was answered: slow answers do not hide that others waited.
-- At most a second of requests that could not be sent in time is made up for.
-- After `--`: a file that ends all once it is there, a folder for logs, requests of each thread at most, microseconds
-- between two of them, threads, a pattern of the body. Each thread logs a line for each request: due (microseconds since 1970), taken (microseconds), what was
-- wrong (nothing when it was good).
local ffi = require("ffi")
ffi.cdef [[
struct load_time { long s; long ns; };
int clock_gettime(int clock, struct load_time *now);
int usleep(unsigned int us);
]]
local time = ffi.new("struct load_time")

local function now()
    ffi.C.clock_gettime(0, time)
    return tonumber(time.s) * 1e6 + math.floor(tonumber(time.ns) / 1e3)
end

local started = 0
function setup(thread)
    thread:set("id", started)
    started = started + 1
end

local stop, folder, log, count, interval, threads, body, text, first
local asked, answered, due, tried = 0, 0, 0, false

function init(args)
    stop, folder, body = args[1], args[2], args[6]
    count, interval, threads = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
    log = io.open(string.format("%s/%d", folder, id), "w")
    text = wrk.format()
    first = now() + interval * id / threads
end

local function ended()
    local there = io.open(stop)
    if there then there:close() end
    return there or asked == count
end

-- The last thread to end ends wrk, which would stay until its time is over.
local function finish()
    log:close()
    wrk.thread:stop()
    local finished = io.open(folder .. "/finished", "a")
    finished:write(".")
    finished:flush()
    if finished:seek("end") == threads then os.exit(0) end
end

local function note(kind)
    answered = asked
    log:write(string.format("%d %d %s\n", due, now() - due, kind))
end

function request()
    if id == 0 and not tried then -- wrk looks at what the first thread would send, and does not send it
        tried = true
        return text
    end
    if asked > answered then note("connection") end
    if ended() then
        finish()
        return ""
    end
    due = first + asked * interval
    local wait = due - now()
    if wait < -1e6 then
        first = first - wait - 1e6
        due, wait = now() - 1e6, -1e6
    end
    if wait > 0 then ffi.C.usleep(wait) end
    asked = asked + 1
    return text
end

function response(status, headers, got)
    if status ~= 200 then
        note(status)
    elseif not string.match(got, body) then
        note("body")
    else
        note("")
    end
end
