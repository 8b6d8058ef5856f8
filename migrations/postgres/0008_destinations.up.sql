-- Destinations of more than one kind, with settings that are bounded in size.

ALTER TABLE destinations DROP CONSTRAINT destinations_kind_check;
ALTER TABLE destinations ADD CONSTRAINT destinations_kind_check CHECK (kind IN ('clickhouse', 'postgres'));
ALTER TABLE destinations ADD CONSTRAINT destinations_settings_size CHECK (octet_length(settings::text) <= 4096);

-- A view of a shared table shows the rows of a workspace: with two of them it would show each event twice.
CREATE UNIQUE INDEX destinations_shared ON destinations (workspace) WHERE settings ->> 'layout' = 'shared';
