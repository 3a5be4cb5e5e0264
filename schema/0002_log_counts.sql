-- How many entries there are (DEW-010), counted where they come and go: by day, so that a dropped partition
-- takes its counts along, by component and by level.
CREATE TABLE log_counts (
    day       date   NOT NULL,  -- UTC, of created_at
    component text   NOT NULL,
    level     text   NOT NULL,
    entries   bigint NOT NULL,
    PRIMARY KEY (day, component, level)
) WITH (
    -- A row changes with every batch: room for its versions in its page, and vacuum without waiting for a
    -- fifth of the table to be dead.
    fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000
);

-- Triggers on `logs` and no statement of Dewey's: whoever writes is counted, also a role that may insert and
-- nothing else, in the transaction that writes. They fire once a statement. What maintenance moves from the
-- default partition to a day's goes by the names of the partitions, fires nothing, and changes no count.
--
-- Groups in order, for additions and subtractions alike, so that two writers do not lock them crosswise.
CREATE FUNCTION log_count_stored() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO log_counts AS known (day, component, level, entries)
    SELECT (created_at AT TIME ZONE 'UTC')::date, component, level, count(*)
    FROM stored GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (day, component, level) DO UPDATE SET entries = known.entries + EXCLUDED.entries;
    RETURN NULL;
END $$;

CREATE FUNCTION log_count_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO log_counts AS known (day, component, level, entries)
    SELECT (created_at AT TIME ZONE 'UTC')::date, component, level, -count(*)
    FROM deleted GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (day, component, level) DO UPDATE SET entries = known.entries + EXCLUDED.entries;
    RETURN NULL;
END $$;

CREATE FUNCTION log_count_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    DELETE FROM log_counts;
    RETURN NULL;
END $$;

-- They run as their owner: the names in them must not be a matter of who calls.
DO $$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['log_count_stored()', 'log_count_deleted()', 'log_count_truncated()'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', each, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', each);
    END LOOP;
END $$;

-- Creating a trigger keeps writers out until the commit, so that what is counted here is what was there.
CREATE TRIGGER log_count_stored AFTER INSERT ON logs
    REFERENCING NEW TABLE AS stored FOR EACH STATEMENT EXECUTE FUNCTION log_count_stored();
CREATE TRIGGER log_count_deleted AFTER DELETE ON logs
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION log_count_deleted();
CREATE TRIGGER log_count_truncated AFTER TRUNCATE ON logs
    FOR EACH STATEMENT EXECUTE FUNCTION log_count_truncated();

INSERT INTO log_counts (day, component, level, entries)
SELECT (created_at AT TIME ZONE 'UTC')::date, component, level, count(*) FROM logs GROUP BY 1, 2, 3;
