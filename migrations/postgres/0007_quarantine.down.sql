DROP TABLE function_debug;
DROP TABLE quarantines;
