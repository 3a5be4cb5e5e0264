-- Who may do what (CONST-001): `godot_log_writer` inserts and nothing else, `godot_log_reader` reads and nothing else.
--
-- Roles belong to the whole cluster, and the owner of a database may not be allowed to make any. Then an
-- administrator makes them, and the owner calls grant_log_roles().

-- What an insert has to know of ids that others made (dewey_logs/postgres/store.py), for who may not read: which of
-- these there are, and nothing more.
CREATE FUNCTION log_known_ids(ids uuid[]) RETURNS SETOF uuid LANGUAGE sql STABLE SECURITY DEFINER
    AS 'SELECT id FROM logs WHERE id = ANY (ids)';

CREATE FUNCTION grant_log_roles() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('godot_log_writer') IS NOT NULL THEN
        GRANT INSERT ON logs TO godot_log_writer;
        GRANT EXECUTE ON FUNCTION log_known_ids(uuid[]) TO godot_log_writer;
    END IF;
    IF to_regrole('godot_log_reader') IS NOT NULL THEN
        GRANT SELECT ON logs, log_counts TO godot_log_reader;
    END IF;
END $$;

DO $$
DECLARE
    each text;
BEGIN
    -- It runs as its owner: the names in it must not be a matter of who calls.
    EXECUTE format('ALTER FUNCTION log_known_ids(uuid[]) SET search_path = %I, pg_temp', current_schema());
    REVOKE ALL ON FUNCTION log_known_ids(uuid[]), grant_log_roles() FROM PUBLIC;
    FOREACH each IN ARRAY ARRAY['godot_log_writer', 'godot_log_reader'] LOOP
        BEGIN
            IF to_regrole(each) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', each);
            END IF;
            EXECUTE format('GRANT %I TO CURRENT_USER', each);  -- so that Dewey may store as one (DEWEY_DATABASE_ROLE)
        EXCEPTION
            WHEN insufficient_privilege THEN
                RAISE WARNING 'role % cannot be made or taken: let an administrator make it, then call grant_log_roles()', each;
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- the Dewey of another database was faster
        END;
    END LOOP;
    PERFORM grant_log_roles();
END $$;
