DROP INDEX destinations_shared;
ALTER TABLE destinations DROP CONSTRAINT destinations_settings_size;
ALTER TABLE destinations DROP CONSTRAINT destinations_kind_check;
ALTER TABLE destinations ADD CONSTRAINT destinations_kind_check CHECK (kind IN ('clickhouse'));
