-- What is kept whatever is cleared, and who has cleared what (DEW-009).

CREATE TABLE log_pins (
    trace_id  uuid PRIMARY KEY,
    note      text NOT NULL,
    pinned_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pinned_by text NOT NULL,
    until     timestamptz  -- for ever, without
);
COMMENT ON TABLE log_pins IS 'traces whose entries survive retention and clearing';

CREATE TABLE log_clears (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cleared_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cleared_by text NOT NULL,
    filters    jsonb NOT NULL,
    deleted    bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE log_clears IS 'what was cleared; deleted grows with it, in the same transactions';
