-- Shared by the scripts of hooks: loaded behind the ledger's _common.lua, in front of each of them.
--
--   hooks:{namespace}           SET     the ids of a namespace's
--   hook:{id}                   HASH    what it is, and its last delivery
--   received:{id}:{delivery}    HASH    one delivery: who is at it until when, or what became of it; expires
--   order:{id}:{object}         STRING  the latest change of an object that came by; expires

local function received(hook, delivery) return key('received', hook, delivery) end
