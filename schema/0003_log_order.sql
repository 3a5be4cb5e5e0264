-- The order in which entries were stored, for those who follow (dewey_logs/follow.py).
--
-- The transaction that stored it. An id of a transaction is given when it first writes, and transactions end in any
-- order; but once every transaction below some id has ended (pg_snapshot_xmin), nothing can come before that id any
-- more, and what is there can be read without a gap. No time of a clock has this property.
--
-- Entries from before this column have none: who follows begins at the present. Without a default at first, no row is
-- written anew.
ALTER TABLE logs ADD COLUMN stored_in xid8;
ALTER TABLE logs ALTER COLUMN stored_in SET DEFAULT pg_current_xact_id();
COMMENT ON COLUMN logs.stored_in IS 'the transaction that stored it';

-- It grows at its end only, which costs an insert next to nothing.
CREATE INDEX logs_stored ON logs (stored_in) WHERE stored_in IS NOT NULL;
