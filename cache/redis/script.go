package redis

// The scripts. Each takes effect in one step. The hash of an entry has the fields
// v (its encoding), f (Fetched of a policy, empty for an absence), x (Expires), r
// (Refresh, which leases change) and u (Used, which touches change). Times are in
// milliseconds since 1970. A key that has another type than ours is replaced.

// scriptPut puts an entry, and returns 1 if what is there outdates it
// (cache.Entry.Outdates).
//
// KEYS: entry, domains, due, claim. ARGV: domain, v, f, Fetched, x, Checked, r,
// u, when the key expires, the zero time, channel of changes, the Fetched that
// does not count (cache.Store.Replace).
const scriptPut = `
local old = redis.pcall('HMGET', KEYS[1], 'f', 'x')
if old.err then redis.call('DEL', KEYS[1]) old = {} end
local f, x = tonumber(old[1] or ''), tonumber(old[2] or '')
if f and x and f > tonumber(ARGV[4]) and x > tonumber(ARGV[6]) then
	if f ~= tonumber(ARGV[12]) then return 1 end
	redis.call('PUBLISH', ARGV[11], '` + messageDelete + `' .. ARGV[1])
end
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'f', ARGV[3], 'x', ARGV[5], 'r', ARGV[7], 'u', ARGV[8])
redis.call('PEXPIREAT', KEYS[1], ARGV[9])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if ARGV[7] == ARGV[10] then redis.call('ZREM', KEYS[3], ARGV[1]) else redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1]) end
redis.call('DEL', KEYS[4])
redis.call('PUBLISH', ARGV[11], '` + messagePut + `' .. ARGV[1])
return 0`

// scriptTouch moves Used forward. KEYS: entries. ARGV: u of each.
const scriptTouch = `
for i, key in ipairs(KEYS) do
	local old = redis.pcall('HMGET', key, 'v', 'u')
	if not old.err and old[1] then
		local u = tonumber(old[2] or '')
		if not u or u < tonumber(ARGV[i]) then redis.call('HSET', key, 'u', ARGV[i]) end
	end
end
return 0`

// scriptDelete deletes a domain. KEYS: entry, domains, due, claim. ARGV: domain,
// channel of changes.
const scriptDelete = `
redis.call('DEL', KEYS[1], KEYS[4])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('PUBLISH', ARGV[2], '` + messageDelete + `' .. ARGV[1])
return 0`

// scriptDue takes and leases what is due, and corrects rows that do not match
// their entries. It returns domain, v, r and u of each, and the error of a sweep.
//
// A sweep removes rows of entries that have expired, which the server removes by
// itself: one page of the domains every ten seconds, and up to five pages while
// it finds any. All daemons of a site take turns in one sweep.
//
// KEYS: due, domains, swept, cursor. ARGV: now, until, how many, prefix of
// entries, how long an entry is kept.
const scriptDue = `
local function sweep()
	if not redis.call('SET', KEYS[3], '', 'NX', 'PX', 10000) then return end
	for page = 1, 5 do
		local rows = redis.call('ZRANGE', KEYS[2], redis.call('GET', KEYS[4]) or '-', '+', 'BYLEX', 'LIMIT', 0, 256)
		local gone = 0
		for _, domain in ipairs(rows) do
			if redis.call('EXISTS', ARGV[4] .. domain) == 0 then
				redis.call('ZREM', KEYS[1], domain)
				redis.call('ZREM', KEYS[2], domain)
				gone = gone + 1
			end
		end
		redis.call('SET', KEYS[4], #rows < 256 and '-' or '(' .. rows[#rows])
		if #rows < 256 or gone == 0 then return end
	end
end

local taken, n = {}, tonumber(ARGV[3])
while #taken < n do
	local rows = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, n - #taken)
	if #rows == 0 then break end
	for i = 1, #rows, 2 do
		local domain, key = rows[i], ARGV[4] .. rows[i]
		local e = redis.pcall('HMGET', key, 'v', 'r', 'u', 'x')
		local r = not e.err and tonumber(e[2] or '')
		if not r or not e[1] then
			redis.call('ZREM', KEYS[1], domain)
			if redis.call('EXISTS', key) == 0 then redis.call('ZREM', KEYS[2], domain) end
		elseif r ~= tonumber(rows[i + 1]) and r > tonumber(ARGV[1]) then
			redis.call('ZADD', KEYS[1], e[2], domain)
		else
			redis.call('HSET', key, 'r', ARGV[2])
			redis.call('ZADD', KEYS[1], ARGV[2], domain)
			local last = math.max(tonumber(e[4] or '') or 0, tonumber(ARGV[2]))
			redis.call('PEXPIREAT', key, string.format('%.0f', last + tonumber(ARGV[5])))
			taken[#taken + 1] = {domain, e[1], e[2], e[3]}
		end
	end
end
-- What is taken is taken, even if the sweep fails.
local ok, err = pcall(sweep)
return {taken, ok and '' or type(err) == 'table' and err.err or tostring(err)}`

// scriptRelease gives back a claim. KEYS: claim. ARGV: owner.
const scriptRelease = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0`
