DROP TABLE required_fields;
DROP TABLE aliases;
DROP FUNCTION learn_fields(text, text[], text[], bytea[], integer, integer, integer);
DROP TABLE field_proposals;
DROP TABLE fields;
