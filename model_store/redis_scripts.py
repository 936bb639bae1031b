"""The model store's atomic steps in Lua. redis_store.py calls them; keys.py says what each key holds.

A script that writes for a trainer checks its lease first, and answers 'lease' if another trainer has taken it: a
trainer that was frozen or cut off can write nothing.
"""

# A lower token, or none, means that Redis went back in time (a failover) or lost everything. Then a trainer that held
# the lease before may restore its token, and the first to write shuts out the others.
_HELD = """
local function held(key, token)
  local now = redis.call('GET', key)
  if now and tonumber(now) > tonumber(token) then return false end
  if now ~= token then redis.call('SET', key, token) end
  return true
end
"""

PUBLISH = (
    _HELD
    + """
local token, newest, versions, summaries, references, dropped, log, manifest, parent = unpack(KEYS)
if not held(token, ARGV[1]) then return 'lease' end
local version, last = ARGV[2], redis.call('GET', newest)
if last == version and redis.call('GET', manifest) == ARGV[4] then return 'ok' end
if last and tonumber(version) <= tonumber(last) then return 'exists' end
if ARGV[3] == 'delta' and redis.call('EXISTS', parent) == 0 then return 'parent' end
redis.call('SET', manifest, ARGV[4])
redis.call('SET', newest, version)
redis.call('ZADD', versions, version, version)
redis.call('HSET', summaries, version, ARGV[5])
for i = 7, #ARGV do
  redis.call('HINCRBY', references, ARGV[i], 1)
  redis.call('SREM', dropped, ARGV[i])
end
redis.call('XADD', log, 'MAXLEN', '~', ARGV[6], '*',
  'what', 'publish', 'alias', '', 'version', version, 'reason', ARGV[3])
return 'ok'
"""
)

MOVE = (
    _HELD
    + """
local token, pinned, pinned_at, pointer, challenger, aliases, log, manifest = unpack(KEYS)
local lease, what, alias, version, reason, length = unpack(ARGV)
if lease ~= '' then
  if not held(token, lease) then return 'lease' end
  if what == 'move' and alias == 'champion' and redis.call('EXISTS', pinned) == 1 then return 'pinned' end
end
if redis.call('EXISTS', manifest) == 0 then return 'missing' end
if what == 'rollback' then
  local now = redis.call('TIME')
  redis.call('SET', pinned, version)
  redis.call('SET', pinned_at, now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
end
if what == 'promote' then redis.call('DEL', pinned, pinned_at) end
if what == 'move' and redis.call('GET', pointer) == version then return 'ok' end
redis.call('SET', pointer, version)
if alias ~= 'champion' then
  redis.call('SADD', aliases, alias)
elseif tonumber(redis.call('GET', challenger) or version + 1) <= tonumber(version) then
  redis.call('DEL', challenger)
  redis.call('SREM', aliases, 'challenger')
end
redis.call('XADD', log, 'MAXLEN', '~', length, '*',
  'what', what, 'alias', alias, 'version', version, 'reason', reason)
return 'ok'
"""
)

# The keys of manifests and aliases are made within the script, where it is known which there are. They are in the same
# slot as the others.
DELETE = (
    _HELD
    + """
local token, newest, live, aliases, versions, summaries, references, dropped = unpack(KEYS)
if ARGV[1] ~= '' and not held(token, ARGV[1]) then return {'lease'} end
local needed = {}
needed[redis.call('GET', newest) or ''] = true
needed[redis.call('GET', live) or ''] = true
for _, alias in ipairs(redis.call('SMEMBERS', aliases)) do needed[redis.call('GET', ARGV[2] .. alias) or ''] = true end
for i = 4, #ARGV do if needed[ARGV[i]] then return {'needed', ARGV[i]} end end
for i = 4, #ARGV do
  local version = ARGV[i]
  local summary = redis.call('HGET', summaries, version)
  redis.call('DEL', ARGV[3] .. version)
  redis.call('ZREM', versions, version)
  redis.call('HDEL', summaries, version)
  for digest in string.gmatch(summary or '', '%x+') do
    if #digest == 64 and redis.call('HINCRBY', references, digest, -1) <= 0 then
      redis.call('HDEL', references, digest)
      redis.call('SADD', dropped, digest)
    end
  end
end
return {'ok'}
"""
)

# A token is at least the time in milliseconds, so that none is given out twice, even if Redis lost the last one.
ACQUIRE = """
local lease, token = unpack(KEYS)
if redis.call('EXISTS', lease) == 1 then return false end
local now = redis.call('TIME')
local time = now[1] * 1000 + math.floor(now[2] / 1000)
local mine = string.format('%.0f', math.max(time, (redis.call('GET', token) or 0) + 1))
redis.call('SET', token, mine)
redis.call('SET', lease, mine .. ':' .. ARGV[1], 'PX', ARGV[2])
return mine
"""

RENEW = (
    _HELD
    + """
local lease, token = unpack(KEYS)
if not held(token, ARGV[1]) then return 0 end
redis.call('SET', lease, ARGV[1] .. ':' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
)

RELEASE = """
local lease, token = unpack(KEYS)
if redis.call('GET', token) ~= ARGV[1] then return 0 end
redis.call('INCR', token)
redis.call('DEL', lease)
return 1
"""

TAKE_REQUEST = (
    _HELD
    + """
local token, request = unpack(KEYS)
if not held(token, ARGV[1]) then return {'lease'} end
local reason = redis.call('GET', request)
redis.call('DEL', request)
return {'ok', reason}
"""
)
