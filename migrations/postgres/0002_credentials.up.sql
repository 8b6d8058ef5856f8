-- What clients present. Only the SHA-256 of a secret is kept: secrets are long and random, so a slow hash
-- would add cost and no safety.

CREATE TABLE write_keys (
    id          text PRIMARY KEY CHECK (id LIKE 'wk\_%'),
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    kind        text NOT NULL CHECK (kind IN ('server', 'browser', 'import')),
    workspace   text NOT NULL,
    source      text NOT NULL,
    origins     text[] NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    FOREIGN KEY (workspace, source) REFERENCES sources (workspace, id),
    -- Origins are a browser's; on another kind of key they would suggest a protection that is not there.
    CHECK (kind = 'browser' OR origins = '{}')
);
CREATE INDEX write_keys_by_source ON write_keys (workspace, source);

CREATE TABLE service_tokens (
    id          text PRIMARY KEY CHECK (id LIKE 'st\_%'),
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    name        text NOT NULL CHECK (name <> ''),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz
);
