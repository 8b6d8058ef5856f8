-- What a workspace knows and asks of its events.

-- The type of a field is fixed by the first who may fix it and never by itself changed after.
CREATE TABLE fields (
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    type       text NOT NULL CHECK (type IN ('string', 'number', 'boolean', 'date-time', 'array', 'object')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);

-- What strangers say of fields that nobody has fixed: who (a hash) said which type.
CREATE TABLE field_proposals (
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    guest      bytea NOT NULL CHECK (octet_length(guest) = 16),
    type       text NOT NULL CHECK (type IN ('string', 'number', 'boolean', 'date-time', 'array', 'object')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name, guest)
);

-- Learns fields in one call, in turn with every other call for the workspace. `guests` is null for those who
-- may fix a type; else the type is fixed once `agreement` guests said the same. Gives the fields among `names`
-- that are fixed now, and with a null type those for which there is no room.
CREATE FUNCTION learn_fields(
    of_workspace text, names text[], types text[], guests bytea[], agreement integer, room integer, proposals integer
) RETURNS TABLE (field text, field_type text) LANGUAGE plpgsql AS $$
DECLARE
    held integer;
    proposed integer;
    known text;
    fixes boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('fields ' || of_workspace, 0));
    SELECT count(*) INTO held FROM fields f WHERE f.workspace = of_workspace;
    SELECT count(*) INTO proposed FROM field_proposals p WHERE p.workspace = of_workspace;
    FOR i IN 1 .. cardinality(names) LOOP
        SELECT f.type INTO known FROM fields f WHERE f.workspace = of_workspace AND f.name = names[i];
        IF known IS NULL THEN
            fixes := guests IS NULL;
            IF NOT fixes AND held < room AND proposed < proposals THEN
                -- A guest has one say: the first.
                INSERT INTO field_proposals (workspace, name, guest, type)
                    VALUES (of_workspace, names[i], guests[i], types[i]) ON CONFLICT DO NOTHING;
                proposed := proposed + 1;
                fixes := agreement <= (
                    SELECT count(*) FROM field_proposals p
                    WHERE p.workspace = of_workspace AND p.name = names[i] AND p.type = types[i]);
            END IF;
            IF held >= room THEN
                field := names[i]; field_type := NULL;
                RETURN NEXT;
                CONTINUE;
            END IF;
            IF NOT fixes THEN
                CONTINUE;
            END IF;
            INSERT INTO fields (workspace, name, type) VALUES (of_workspace, names[i], types[i]);
            DELETE FROM field_proposals p WHERE p.workspace = of_workspace AND p.name = names[i];
            held := held + 1;
            known := types[i];
        END IF;
        field := names[i]; field_type := known;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Names that were changed: top-level names in `properties`.
CREATE TABLE aliases (
    workspace  text NOT NULL REFERENCES workspaces,
    old        text NOT NULL CHECK (old <> ''),
    new        text NOT NULL CHECK (new <> '' AND new <> old),
    mode       text NOT NULL CHECK (mode IN ('old', 'both', 'new')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, old),
    UNIQUE (workspace, new)
);

-- Fields that every event must have, such as a brand or a tenant.
CREATE TABLE required_fields (
    workspace  text NOT NULL REFERENCES workspaces,
    name       text NOT NULL CHECK (name <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace, name)
);
