ALTER TABLE write_keys DROP COLUMN ip_policy;
