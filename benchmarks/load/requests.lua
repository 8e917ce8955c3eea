-- What wrk sends. OP is list, get, create, patch or mix; TOKENS a file of "token id" lines.
-- Prints one line of JSON on stderr at the end; latencies are in microseconds.

local path = "/api/v1/conversations"
local lists, gets, rows = {}, {}, {}

local function headers(token)
  return { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
end

-- wrk calls it once a thread; formatting a GET each time anew would load the machine.
function init()
  math.randomseed(tonumber(os.getenv("SEED")))
  for line in io.lines(os.getenv("TOKENS")) do
    local token, id = line:match("^(%S+) (%S+)$")
    local row = { headers = headers(token), path = path .. "/" .. id }
    rows[#rows + 1] = row
    lists[#lists + 1] = wrk.format("GET", path .. "?limit=20", row.headers)
    gets[#gets + 1] = wrk.format("GET", row.path, row.headers)
  end
end

local sent = 0

-- A title of its own each time: a change to what is there already is none.
local function title()
  sent = sent + 1
  return string.format("%s %d", os.getenv("SEED"), sent)
end

local send = {}

function send.list(number) return lists[number] end

function send.get(number) return gets[number] end

function send.create(number)
  local body = '{"character_id": "luna", "title": "' .. title() .. '", "tags": ["casual", "role play"],'
    .. ' "settings": {"temperature": 0.7, "max_tokens": 2048, "context_window": 4000}}'
  return wrk.format("POST", path, rows[number].headers, body)
end

function send.patch(number)
  local body = '{"title": "' .. title() .. '", "tags": ["ideas", "work"]}'
  return wrk.format("PATCH", rows[number].path, rows[number].headers, body)
end

function send.mix(number)
  local dice = math.random(100)
  if dice <= 45 then return send.list(number) end
  if dice <= 80 then return send.get(number) end
  if dice <= 90 then return send.create(number) end
  return send.patch(number)
end

local chosen = send[os.getenv("OP")]

function request() return chosen(math.random(#rows)) end

function done(summary, latency)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %.1f, "p99_us": %.1f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
