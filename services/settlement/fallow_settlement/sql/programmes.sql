-- name: insert_promotion
INSERT INTO promotion (id, account_id, asset, take_basis_points, start_time, end_time, reason, creator, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: load_promotion
SELECT * FROM promotion WHERE id = $1;

-- name: end_promotion
-- From an instant on; one that is over by then stays as it is, one that has not begun never begins.
UPDATE promotion SET end_time = greatest(start_time, $2) WHERE id = $1 AND end_time > $2 RETURNING *;

-- name: list_promotions
SELECT * FROM promotion
WHERE ($1::text = '' OR account_id = $1) AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;

-- name: load_promoted_take
-- The least take that promotions give two accounts' leases in an asset at an instant; null for none.
SELECT min(take_basis_points) FROM promotion
WHERE account_id = ANY ($1::text[]) AND asset = $2 AND start_time <= $3 AND $3 < end_time;

-- name: insert_grant
INSERT INTO community_grant (id, account_id, asset, amount, reason, creator, create_time, expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: load_grants
SELECT community_grant.*, array(
    SELECT grant_approval.account_id FROM grant_approval
    WHERE grant_id = community_grant.id
    ORDER BY grant_approval.create_time, grant_approval.account_id
) AS approvers
FROM community_grant
WHERE ($1::text = '' OR id = $1) AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;

-- name: lock_grant
SELECT 1 FROM community_grant WHERE id = $1 FOR UPDATE;

-- name: approve_grant
INSERT INTO grant_approval (grant_id, account_id, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: pay_grant
UPDATE community_grant SET pay_time = $2 WHERE id = $1;

-- name: insert_programme
INSERT INTO programme (id, model, asset, target_milli, reference_micros_per_hour, budget, auditors, creator, create_time, end_time,
                       next_day)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: load_programmes
SELECT programme.*, coalesce(
    (SELECT sum(paid) FROM programme_share WHERE programme_id = programme.id), 0
)::bigint AS paid
FROM programme
WHERE ($1::text = '' OR id = $1) AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::text))
ORDER BY create_time DESC, id DESC
LIMIT $4;

-- name: list_running_programmes
SELECT id FROM programme WHERE close_time IS NULL ORDER BY id;

-- name: lock_programme
SELECT 1 FROM programme WHERE id = $1 FOR UPDATE;

-- name: end_programme
UPDATE programme SET end_time = $2 WHERE id = $1 AND end_time > $2;

-- name: save_programme
UPDATE programme SET next_day = $2, close_time = $3 WHERE id = $1;

-- name: list_shares
SELECT * FROM programme_share
WHERE programme_id = $1 AND ($2::date IS NULL OR (day, provider_id) < ($2, $3::text))
ORDER BY day DESC, provider_id DESC
LIMIT $4;

-- name: insert_online_time
INSERT INTO online_time (provider_id, model, asset, auditor, start_time, account_id, ask_micros_per_hour, online_ms)
SELECT $1, $2, $3, auditor, $4, $5, $6, online_ms
FROM unnest($7::text[], $8::bigint[]) AS audited (auditor, online_ms)
ON CONFLICT DO NOTHING;

-- name: insert_lease_models
INSERT INTO lease_model (lease_id, model, milli)
SELECT $1, model, milli FROM unnest($2::text[], $3::integer[]) AS new (model, milli);

-- name: load_programme_sums
-- What a programme counts from its start up to an instant, by provider, and what it has paid each.
-- An hour counts where devices were offered for no more than the reference rate; of several auditors the one that vouches for most.
-- Accounts are related where they are one, where both named one address to be paid at, or where the tenant's deposits come from an address
-- that the owner named.
WITH online AS (
    SELECT provider_id, min(account_id) AS account_id, sum(best) AS online_ms
    FROM (
        SELECT provider_id, account_id, start_time, max(online_ms) AS best
        FROM online_time
        WHERE model = $2 AND asset = $3 AND ask_micros_per_hour <= $4 AND auditor = ANY ($5::text[])
          AND start_time >= $6 AND start_time < $7
        GROUP BY provider_id, account_id, start_time
    ) AS hours
    GROUP BY provider_id
),
own_address AS (
    SELECT account_id, payee AS address FROM withdrawal WHERE NOT overpaid
    UNION
    SELECT account_id, payee FROM balance_payee
),
address AS (
    SELECT account_id, address FROM own_address
    UNION
    SELECT account_id, lower(sender) FROM deposit WHERE state = 'POSTED'
),
pair AS (
    SELECT lease_id, metering.provider_id, order_id, group_index, generation, milli,
           (SELECT sum(every.milli) FROM lease_model AS every WHERE every.lease_id = metering.lease_id) AS all_milli,
           tenant_id = provider_account_id OR EXISTS (
               SELECT 1 FROM address
               JOIN own_address USING (address)
               WHERE address.account_id = tenant_id AND own_address.account_id = provider_account_id
           ) AS related
    FROM lease_model
    JOIN metering USING (lease_id)
    JOIN online USING (provider_id)
    WHERE model = $2 AND metering.asset = $3
),
leased AS (
    SELECT pair.provider_id,
           sum((to_running_ms - from_running_ms) * milli / 1000)
               FILTER (WHERE related AND proof_level <> 'TERM') AS related_ms,
           sum(div((amount - fee - pool)::numeric * milli, all_milli)) FILTER (WHERE NOT related) AS earned
    FROM pair
    JOIN charge USING (order_id, group_index, generation)
    WHERE charge.create_time >= $6 AND charge.create_time < $7
    GROUP BY pair.provider_id
),
paid AS (
    SELECT provider_id, sum(paid) AS paid FROM programme_share WHERE programme_id = $1 GROUP BY provider_id
)
SELECT online.provider_id, online.account_id, online.online_ms::bigint AS online_ms,
       coalesce(leased.related_ms, 0)::bigint AS related_ms, coalesce(leased.earned, 0)::bigint AS earned,
       coalesce(paid.paid, 0)::bigint AS paid
FROM online
LEFT JOIN leased USING (provider_id)
LEFT JOIN paid USING (provider_id)
ORDER BY online.provider_id;
