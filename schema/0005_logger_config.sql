-- From which level on the entries of a component are stored (DEW-011).
CREATE TABLE logger_config (
    component text PRIMARY KEY,  -- '*': of those that have none of their own
    level     text CHECK (level IN ('ERROR', 'WARN', 'INFO', 'DEBUG', 'TRACE')),
    until     timestamptz,       -- for ever, without
    later     text CHECK (later IN ('ERROR', 'WARN', 'INFO', 'DEBUG', 'TRACE')),
    set_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    set_by    text NOT NULL
);
COMMENT ON COLUMN logger_config.level IS 'null: none is set, and everything is stored';
COMMENT ON COLUMN logger_config.later IS 'what counts after `until`';
