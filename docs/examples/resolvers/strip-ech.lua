-- PowerDNS Recursor: takes `ech` out of HTTPS and SVCB records (RFC 9460), so that hellos show their names to the filter
-- (docs/export.md). All else in them stays. Set lua-dns-script in recursor.conf to this file.

local SVCB, HTTPS = 64, 65

function postresolve(dq)
    if dq.qtype ~= SVCB and dq.qtype ~= HTTPS then
        return false
    end
    local records, changed = dq:getRecords(), false
    for _, record in pairs(records) do
        if record.type == SVCB or record.type == HTTPS then
            local text = record:getContent()
            local plain = text:gsub(" ech=%S+", "")
            if plain ~= text then
                record:changeContent(plain)
                changed = true
            end
        end
    end
    if changed then
        dq:setRecords(records)
    end
    return changed
end
