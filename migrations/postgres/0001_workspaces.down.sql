DROP TABLE destinations;
DROP FUNCTION next_destination_version();
DROP TABLE sources;
DROP TABLE workspaces;
DROP TABLE organizations;
