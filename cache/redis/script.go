package redis

// The scripts. A hash of an entry has the fields v (the encoding), f (Fetched of
// a policy, empty for an absence), x (Expires), r (Refresh, which leases move)
// and u (Used, which touches move); times in milliseconds, empty for the zero
// time. What has another type than ours is replaced.

// scriptPut puts an entry, and returns 1 if what is there outdates it
// (cache.Entry.Outdates).
//
// KEYS: entry, domains, due, feed, claim. ARGV: domain, v, f, Fetched, x,
// Checked, r, u, when the key expires, length of the feed.
const scriptPut = `
local old = redis.pcall('HMGET', KEYS[1], 'f', 'x')
if old.err then redis.call('DEL', KEYS[1]) old = {} end
local f, x = tonumber(old[1] or ''), tonumber(old[2] or '')
if f and x and f > tonumber(ARGV[4]) and x > tonumber(ARGV[6]) then return 1 end
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'f', ARGV[3], 'x', ARGV[5], 'r', ARGV[7], 'u', ARGV[8])
redis.call('PEXPIREAT', KEYS[1], ARGV[9])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if ARGV[7] == '' then redis.call('ZREM', KEYS[3], ARGV[1]) else redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1]) end
redis.call('DEL', KEYS[5])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[10], '*', 'd', ARGV[1])
return 0`

// scriptTouch moves Used forward. KEYS: entry. ARGV: u.
const scriptTouch = `
local old = redis.pcall('HMGET', KEYS[1], 'v', 'u')
if old.err or not old[1] then return 0 end
local u = tonumber(old[2] or '')
if not u or u < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'u', ARGV[1]) end
return 0`

// scriptDelete forgets a domain. KEYS: entry, domains, due, feed, claim. ARGV:
// domain, length of the feed.
const scriptDelete = `
redis.call('DEL', KEYS[1], KEYS[5])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[2], '*', 'd', ARGV[1], 'x', '1')
return 0`

// scriptDue takes and leases what is due, and mends rows that lead nowhere or
// elsewhere. It returns domain, v, r and u of each.
//
// KEYS: due, domains. ARGV: now, until, how many, prefix of entries, how long an entry
// is kept.
const scriptDue = `
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
return taken`

// scriptRelease gives back a claim. KEYS: claim. ARGV: owner.
const scriptRelease = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0`

// scriptSweep removes the rows of an entry that has expired. KEYS: entry,
// domains, due. ARGV: domain.
const scriptSweep = `
if redis.call('EXISTS', KEYS[1]) == 0 then
	redis.call('ZREM', KEYS[2], ARGV[1])
	redis.call('ZREM', KEYS[3], ARGV[1])
end
return 0`

// scriptSweepMany removes the rows of entries that have expired from one page of
// the domains. It returns where the next page begins, empty at the end, and how
// many it has removed.
//
// KEYS: domains, due. ARGV: where to begin, how many to look at, prefix of
// entries.
const scriptSweepMany = `
local rows = redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
local gone = 0
for _, domain in ipairs(rows) do
	if redis.call('EXISTS', ARGV[3] .. domain) == 0 then
		redis.call('ZREM', KEYS[1], domain)
		redis.call('ZREM', KEYS[2], domain)
		gone = gone + 1
	end
end
if #rows < tonumber(ARGV[2]) then return {'', gone} end
return {'(' .. rows[#rows], gone}`
