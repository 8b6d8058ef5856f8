-- Turns message ids of one workspace into done, whatever was known about them: their events are in a journal.
-- KEYS[1] the run's pendings in the workspace
-- ARGV[1] lifetime in ms; ARGV[2] prefix of the message keys, of KEYS[1]'s slot; ARGV[3] fingerprints, of 22 characters
-- each
return mark_done(KEYS[1], ARGV[2], ARGV[3], ARGV[1])
