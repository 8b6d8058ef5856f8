-- Who sends events and where they go. Ids are short, prefixed and made by the application.

CREATE TABLE organizations (
    id         text PRIMARY KEY CHECK (id LIKE 'org\_%'),
    name       text NOT NULL UNIQUE CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE workspaces (
    id           text PRIMARY KEY CHECK (id LIKE 'ws\_%'),
    organization text NOT NULL REFERENCES organizations,
    name         text NOT NULL UNIQUE CHECK (name <> ''),
    tier         text NOT NULL DEFAULT 'default' CHECK (tier IN ('default', 'pro', 'enterprise')),
    limits       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workspaces_by_organization ON workspaces (organization);

CREATE TABLE sources (
    id         text PRIMARY KEY CHECK (id LIKE 'src\_%'),
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace, name),
    -- Target of the composite foreign keys that keep one workspace's rows from naming another's.
    UNIQUE (workspace, id)
);

CREATE TABLE destinations (
    id         text PRIMARY KEY CHECK (id LIKE 'dst\_%'),
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    kind       text NOT NULL CHECK (kind IN ('clickhouse')),
    database   text NOT NULL CHECK (database <> ''),
    "table"    text NOT NULL CHECK ("table" <> ''),
    settings   jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace, name),
    UNIQUE (workspace, id)
);
-- Two workspaces never share a table by accident: their names may become the same database name.
CREATE UNIQUE INDEX destinations_by_table ON destinations (kind, database, "table");

-- The version travels with every row that is written for a destination, so it must tell two settings apart,
-- whoever changed them.
CREATE FUNCTION next_destination_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.kind, NEW.database, NEW."table", NEW.settings) IS DISTINCT FROM (OLD.kind, OLD.database, OLD."table", OLD.settings) THEN
        NEW.version := OLD.version + 1;
    ELSE
        NEW.version := OLD.version;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER destination_version BEFORE UPDATE ON destinations
    FOR EACH ROW EXECUTE FUNCTION next_destination_version();
