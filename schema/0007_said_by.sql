-- Who asked, beside what they said of themselves: the other column says where the call came from, which nobody can
-- choose.
ALTER TABLE log_clears ADD COLUMN said_by text;
ALTER TABLE log_pins ADD COLUMN said_by text;
ALTER TABLE logger_config ADD COLUMN said_by text;
COMMENT ON COLUMN log_clears.cleared_by IS 'where the call came from';
COMMENT ON COLUMN log_clears.said_by IS 'who they said they were; null: nothing was said';
COMMENT ON COLUMN log_pins.pinned_by IS 'where the call came from';
COMMENT ON COLUMN log_pins.said_by IS 'who they said they were; null: nothing was said';
COMMENT ON COLUMN logger_config.set_by IS 'where the call came from';
COMMENT ON COLUMN logger_config.said_by IS 'who they said they were; null: nothing was said';
