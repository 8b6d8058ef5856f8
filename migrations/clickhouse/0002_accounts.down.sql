DROP TABLE IF EXISTS function_logs;
DROP VIEW IF EXISTS usage_hourly_view;
DROP TABLE IF EXISTS usage_hourly;
DROP TABLE IF EXISTS usage_events;
