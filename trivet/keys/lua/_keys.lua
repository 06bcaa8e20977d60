-- Shared by the scripts of API keys: loaded behind the ledger's _common.lua, in front of each of them.
--
--   apikey:{id}              HASH  what it is; a revoked one expires
--   apikeys:{namespace}      SET   the ids of a namespace's

-- Ids of keys that have expired from Redis leave the list when it is next looked at.
local function present(namespace)
  local ids = {}
  for _, id in ipairs(redis.call('SMEMBERS', key('apikeys', namespace))) do
    if redis.call('EXISTS', key('apikey', id)) == 1 then
      table.insert(ids, id)
    else
      redis.call('SREM', key('apikeys', namespace), id)
    end
  end
  return ids
end
