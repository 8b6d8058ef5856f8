//! What Millrace names and makes for itself at a destination: the ledger's schema and tables, the index of identities.

use crate::sql;

/// The schema of the tables that are the destination's own.
pub(crate) const OWN_SCHEMA: &str = "millrace_ledger";

/// Taken while tables are made: two who make one at once would fail.
pub(crate) const MAKING: i64 = 0x6d69_6c6c_7261_6365;

/// What the name of the unique index on a row's identity begins with, in tables that are made here.
pub(crate) const IDENTITY_INDEX: &str = "_millrace_identity_";

/// The statements that make the destination's own tables and the schema of its event tables.
pub(crate) fn tables(schema: &str) -> String {
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock({MAKING});
        DO $$ BEGIN
            IF to_regnamespace('{OWN_SCHEMA}') IS NULL THEN CREATE SCHEMA {OWN_SCHEMA}; END IF;
            IF to_regnamespace({literal}) IS NULL THEN CREATE SCHEMA {schema}; END IF;
        END $$;
        CREATE TABLE IF NOT EXISTS {OWN_SCHEMA}.owners (
            destination text NOT NULL, consumer_group text NOT NULL, partition bigint NOT NULL,
            epoch bigint NOT NULL, taken_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (destination, consumer_group, partition));
        CREATE TABLE IF NOT EXISTS {OWN_SCHEMA}.blocks (
            token uuid PRIMARY KEY, destination text NOT NULL, \"table\" text NOT NULL, consumer_group text NOT NULL,
            partition bigint NOT NULL, first_offset bigint NOT NULL, rows bigint NOT NULL,
            written_at timestamptz NOT NULL DEFAULT now());
        CREATE INDEX IF NOT EXISTS blocks_by_time ON {OWN_SCHEMA}.blocks (written_at);
        COMMIT",
        literal = sql::text(&sql::name(schema)),
        schema = sql::name(schema)
    )
}
