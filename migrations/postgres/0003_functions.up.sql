-- What runs between a source and a destination, and a number that says when that changed.

CREATE TABLE functions (
    id         text PRIMARY KEY CHECK (id LIKE 'fn\_%'),
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace, name),
    UNIQUE (workspace, id)
);

CREATE TABLE function_versions (
    function   text NOT NULL REFERENCES functions,
    version    integer NOT NULL CHECK (version > 0),
    language   text NOT NULL CHECK (language IN ('js', 'ts')),
    code       text NOT NULL CHECK (octet_length(code) BETWEEN 1 AND 1048576),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (function, version)
);

-- A version is named in dead letters and in accounts: what it names never changes.
CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER function_versions_are_final BEFORE UPDATE ON function_versions
    FOR EACH ROW EXECUTE FUNCTION refuse_update();

CREATE TABLE chains (
    id          text PRIMARY KEY CHECK (id LIKE 'ch\_%'),
    workspace   text NOT NULL,
    source      text NOT NULL,
    destination text NOT NULL,
    version     integer NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (source, destination),
    UNIQUE (workspace, id),
    FOREIGN KEY (workspace, source) REFERENCES sources (workspace, id),
    FOREIGN KEY (workspace, destination) REFERENCES destinations (workspace, id)
);

-- Every promotion ever made; `previous` is what a rollback returns to. Nothing is deleted here.
CREATE TABLE promotions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain          text NOT NULL REFERENCES chains,
    function       text NOT NULL,
    version        integer NOT NULL,
    previous       bigint REFERENCES promotions,
    promoted_at    timestamptz NOT NULL DEFAULT now(),
    rolled_back_at timestamptz,
    FOREIGN KEY (function, version) REFERENCES function_versions,
    UNIQUE (id, chain, function)
);

CREATE TABLE chain_functions (
    workspace text NOT NULL,
    chain     text NOT NULL,
    position  integer NOT NULL CHECK (position >= 0),
    function  text NOT NULL,
    promotion bigint NOT NULL,
    PRIMARY KEY (chain, position),
    UNIQUE (chain, function),
    FOREIGN KEY (workspace, chain) REFERENCES chains (workspace, id),
    FOREIGN KEY (workspace, function) REFERENCES functions (workspace, id),
    FOREIGN KEY (promotion, chain, function) REFERENCES promotions (id, chain, function)
);

CREATE FUNCTION next_chain_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE chains SET version = version + 1 WHERE id = COALESCE(NEW.chain, OLD.chain);
    RETURN NULL;
END
$$;
CREATE TRIGGER chain_version AFTER INSERT OR UPDATE OR DELETE ON chain_functions
    FOR EACH ROW EXECUTE FUNCTION next_chain_version();

-- One row that every change of the configuration updates in its own transaction. Its lock puts those
-- transactions in commit order, so a reader that saw version N has seen everything up to N.
CREATE TABLE config_version (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL
);
INSERT INTO config_version (version) VALUES (1);

CREATE FUNCTION next_config_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE config_version SET version = version + 1;
    RETURN NULL;
END
$$;
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sources
    FOR EACH STATEMENT EXECUTE FUNCTION next_config_version();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON destinations
    FOR EACH STATEMENT EXECUTE FUNCTION next_config_version();
-- A new function runs nowhere yet; only its name can matter to a reader.
CREATE TRIGGER config_changed AFTER UPDATE ON functions
    FOR EACH STATEMENT EXECUTE FUNCTION next_config_version();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON chains
    FOR EACH STATEMENT EXECUTE FUNCTION next_config_version();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON chain_functions
    FOR EACH STATEMENT EXECUTE FUNCTION next_config_version();
