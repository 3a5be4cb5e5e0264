-- The log entries: one row an entry, one partition a UTC day (DEW-002, DEW-005).

-- The words of a message, for full-text search. In any language, so no stemming and no stop words.
--
-- A tsvector is limited to 1 MiB and an entry must never fail for its message, so it sees the first
-- 65,536 characters: 4 bytes each, in the shortest different words, they come to less than half of it.
--
-- The parser would keep "tools/call" as one path, "server.js" as one host, "-5" as one number, and drop
-- "<tag>" and "&entity;" altogether. With these seven characters as blanks a word is a run of letters
-- and digits. Nested replace() is 5 times as fast as translate() or regexp_replace(), and this is the
-- most expensive part of storing an entry.
--
-- Names are qualified: autovacuum runs with a search_path of its own.
CREATE FUNCTION log_search_vector(message text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_tsvector(
        'pg_catalog.simple'::regconfig,
        replace(replace(replace(replace(replace(replace(replace(
            left(message, 65536),
            '/', ' '), '.', ' '), '-', ' '), '+', ' '), '<', ' '), '&', ' '), '~', ' ')
    );

CREATE TABLE logs (
    id          uuid        NOT NULL,
    trace_id    uuid,
    component   text        NOT NULL,
    level       text        NOT NULL CHECK (level IN ('ERROR', 'WARN', 'INFO', 'DEBUG', 'TRACE')),
    message     text        NOT NULL,
    data        jsonb,
    created_at  timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, created_at)  -- the key of a partitioned table contains what it is partitioned by
) PARTITION BY RANGE (created_at);

COMMENT ON COLUMN logs.created_at IS 'when it happened, as its component says';
COMMENT ON COLUMN logs.ingested_at IS 'when Dewey stored it';

-- What belongs to no day's partition, or to none yet.
CREATE TABLE logs_default PARTITION OF logs DEFAULT;

-- Entries are read by (created_at, id). Every index that selects goes on with these two, so that a page is
-- read from it in order and no plan has to choose between selecting and sorting.
CREATE INDEX logs_time ON logs (created_at, id);
CREATE INDEX logs_trace ON logs (trace_id, created_at, id) WHERE trace_id IS NOT NULL;
CREATE INDEX logs_component ON logs (component, created_at, id);

-- "At least this level". TRACE needs none; the others may be rare among the rest. With the component at the
-- end, the errors of a component that has none are not looked for among those of all others: 3 ms in 10
-- million rows, 290 ms without.
CREATE INDEX logs_level_warn ON logs (created_at, id, component) WHERE level IN ('ERROR', 'WARN');
CREATE INDEX logs_level_info ON logs (created_at, id, component) WHERE level IN ('ERROR', 'WARN', 'INFO');
CREATE INDEX logs_level_debug ON logs (created_at, id, component) WHERE level IN ('ERROR', 'WARN', 'INFO', 'DEBUG');

-- New entries wait in a list until it is this large (kB), then one insert sorts them all in. Measured, 100
-- entries a batch: the default of 4 MB makes that insert take 55 ms (p99), 256 kB 11 ms, at the same rows/s;
-- without a list the rate falls to a third.
CREATE INDEX logs_message ON logs USING gin (log_search_vector(message)) WITH (gin_pending_list_limit = 256);
CREATE INDEX logs_data ON logs USING gin (data jsonb_path_ops) WITH (gin_pending_list_limit = 256);
