-- What holds functions back, and who wants to hear them.

-- Chain versions whose functions killed workers. Kills count within a window; enough of them hold the version back
-- until a time, each time for longer. Another version of the chain begins anew.
CREATE TABLE quarantines (
    chain            text PRIMARY KEY REFERENCES chains,
    chain_version    bigint NOT NULL CHECK (chain_version > 0),
    function         text,
    function_version integer,
    code             text NOT NULL CHECK (code <> ''),
    kills            integer NOT NULL CHECK (kills >= 0),
    window_ends      timestamptz NOT NULL,
    times            integer NOT NULL CHECK (times >= 0),
    held_until       timestamptz,
    killed_at        timestamptz NOT NULL DEFAULT now()
);

-- Workspaces whose functions' debug lines are kept for a while.
CREATE TABLE function_debug (
    workspace text PRIMARY KEY REFERENCES workspaces,
    ends_at   timestamptz NOT NULL
);
