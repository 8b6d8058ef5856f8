-- What becomes of a client's address before anything is written down. `anonymize` leaves the network: /24 of
-- IPv4, /48 of IPv6.
ALTER TABLE write_keys ADD COLUMN ip_policy text NOT NULL DEFAULT 'keep'
    CHECK (ip_policy IN ('keep', 'anonymize', 'drop'));
