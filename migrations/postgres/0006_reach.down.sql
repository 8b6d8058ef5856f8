DROP TABLE fetch_origins;
DROP TABLE secrets;
DROP FUNCTION next_chain_versions();
