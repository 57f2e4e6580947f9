-- The table in Trino and Athena (Hive connector). Replace the location, and add a row for each scheme of the model:
-- columns are read by name, and a scheme that a night lacks is null in its rows. With zero-shot schemes also: zero_shot ARRAY(VARCHAR).
CREATE TABLE hive.default.emotions (
  image_id BIGINT,
  uri VARCHAR,
  content_hash VARCHAR,
  width INTEGER,
  height INTEGER,
  bytes BIGINT,
  status VARCHAR,
  error VARCHAR,
  sentence VARCHAR,
  polarity3 ROW(label VARCHAR, score REAL, probs ARRAY(REAL)),
  polarity2 ROW(label VARCHAR, score REAL, probs ARRAY(REAL)),
  mikels8 ROW(label VARCHAR, score REAL, probs ARRAY(REAL)),
  valence ROW(value REAL, probs ARRAY(REAL)),
  arousal ROW(value REAL, probs ARRAY(REAL)),
  model VARCHAR,
  run_id VARCHAR,
  annotated_at TIMESTAMP(6) WITH TIME ZONE,
  dt DATE
)
WITH (format = 'PARQUET', partitioned_by = ARRAY['dt'], external_location = 's3://bucket/emotions/annotations');

CALL hive.system.sync_partition_metadata('default', 'emotions', 'ADD');
