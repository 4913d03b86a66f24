-- wrk -s pace.lua URL -- FILE [RATE]: requests the paths in FILE, one a line, in random order.
-- With a RATE it sends so many requests a second in all, at the random times of independent clients (a Poisson process)
-- and not as fast as answers come; as wrk has no clock for scripts, the time comes from the C library.
-- Prints what it measured as one line of JSON. Times are in microseconds, as wrk has them.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } fleetpulse_time; int clock_gettime(int clock, fleetpulse_time *now);")

local paths = {}
local now = ffi.new("fleetpulse_time")

local function milliseconds()
   ffi.C.clock_gettime(1, now) -- CLOCK_MONOTONIC
   return tonumber(now.s) * 1e3 + tonumber(now.ns) / 1e6
end

local function pace(rate)
   local due = milliseconds()
   return function()
      due = due - math.log(1 - math.random()) * 1e3 / rate
      return math.max(math.floor(due - milliseconds() + 0.5), 0)
   end
end

function init(args)
   math.randomseed(1)
   for path in io.lines(args[1]) do
      paths[#paths + 1] = path
   end
   if args[2] then
      delay = pace(tonumber(args[2]))
   end
end

function request()
   return wrk.format("GET", paths[math.random(#paths)])
end

function done(summary, latency, _)
   local e = summary.errors
   io.write(string.format(
      '{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "max": %d, "errors": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
      e.connect + e.read + e.write + e.status + e.timeout
   ))
end
