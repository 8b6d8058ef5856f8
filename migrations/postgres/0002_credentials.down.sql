DROP TABLE service_tokens;
DROP TABLE write_keys;
