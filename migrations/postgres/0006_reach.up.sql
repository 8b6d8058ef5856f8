-- What functions of a workspace know and reach beyond their events.

-- Values are sealed (AES-256-GCM) under a key that is not in this database; `key_id` says which.
CREATE TABLE secrets (
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_]{0,127}$'),
    key_id     text NOT NULL CHECK (key_id <> ''),
    sealed     bytea NOT NULL CHECK (octet_length(sealed) BETWEEN 28 AND 16412),
    set_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);

-- Where `ctx.fetch` may go: `https://api.example.com:443`, `https://*.example.com:443`.
CREATE TABLE fetch_origins (
    workspace  text NOT NULL REFERENCES workspaces,
    origin     text NOT NULL CHECK (origin ~ '^https?://[^/ ]+:[0-9]+$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, origin)
);

-- Both are part of what a chain is: a change gives every chain of the workspace a new version, and with it a new
-- isolate. The update of the chains makes a new version of the configuration.
CREATE FUNCTION next_chain_versions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chains SET version = version + 1 WHERE workspace = COALESCE(NEW.workspace, OLD.workspace);
    RETURN NULL;
END
$$;
CREATE TRIGGER chain_versions AFTER INSERT OR UPDATE OR DELETE ON secrets
    FOR EACH ROW EXECUTE FUNCTION next_chain_versions();
CREATE TRIGGER chain_versions AFTER INSERT OR UPDATE OR DELETE ON fetch_origins
    FOR EACH ROW EXECUTE FUNCTION next_chain_versions();
