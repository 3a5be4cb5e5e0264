-- The order in which entries were stored, by numbers of our own.
--
-- So far `stored_in` was the id of the transaction, and what followers had read was bounded by the oldest transaction
-- that was open. That counts every transaction of the whole server, other databases included: one forgotten session
-- kept all followers waiting. Now it is a number from a sequence, which every INSERT INTO logs draws, and only
-- transactions that have drawn one are waited for.
--
-- Numbers are drawn in order, but transactions end in any order. So before a writer draws its number, it makes known
-- from where on that can be: it takes a shared advisory lock whose key is the last number drawn so far. A reader looks at
-- the sequence first and at these locks afterwards. A writer is then in one of three states:
--
--   its lock is seen         its number is higher than the lock says, and the reader stops there;
--   its lock is taken later  its number is drawn later still, so it is higher than what the reader saw;
--   its lock is gone         it has ended, and a statement that begins now sees its entries.
--
-- Nothing is ever added at or below a number that a reader was told. What is told to two readers may go back a little:
-- when a writer is slow between looking at the sequence and taking its lock. A cursor does not go back with it
-- (dewey_logs/postgres/following.py).
LOCK TABLE logs IN ACCESS EXCLUSIVE MODE;

-- It goes on where the ids of transactions were, so that cursors from before stay right.
CREATE SEQUENCE log_order;
SELECT setval('log_order', greatest(
    pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint
));

-- 396551 is the first half of the keys; the second half holds the low 32 bits of the number.
CREATE FUNCTION log_order_drawn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(396551, last_value::bit(32)::integer) FROM log_order;
    -- For the default of the column: who may only insert may not use the sequence.
    PERFORM set_config('godot.log_order', nextval('log_order')::text, true);
    RETURN NULL;
END $$;
CREATE TRIGGER log_order_drawn BEFORE INSERT ON logs FOR EACH STATEMENT EXECUTE FUNCTION log_order_drawn();

-- Who inserts into a partition directly, around the trigger, is told so: it would be missed by followers.
ALTER TABLE logs ALTER COLUMN stored_in SET DEFAULT current_setting('godot.log_order')::xid8;
COMMENT ON COLUMN logs.stored_in IS 'the number of the insert that stored it, in their order; null: from before there were any';

CREATE FUNCTION log_head(OUT below bigint, OUT latest bigint) LANGUAGE plpgsql AS $$
BEGIN
    SELECT last_value INTO latest FROM log_order;
    SELECT least(latest, min(latest + (objid::bigint - latest)::bit(32)::integer)) + 1 INTO below
    FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 396551 AND objsubid = 2
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
END $$;
COMMENT ON FUNCTION log_head() IS 'below: everything that was stored under a lower number can be read now, and nothing will be added there; latest: the last number drawn';

DO $$
BEGIN
    -- As in 0002: names in it must not be a matter of who calls.
    EXECUTE format('ALTER FUNCTION log_order_drawn() SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION log_order_drawn(), log_head() FROM PUBLIC;
END $$;
