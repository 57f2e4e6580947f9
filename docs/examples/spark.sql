-- The table in Spark SQL. Replace the location, and add a struct for each scheme of the model:
-- columns are read by name, and a scheme that a night lacks is null in its rows. With zero-shot schemes also: zero_shot ARRAY<STRING>.
CREATE TABLE emotions (
  image_id BIGINT,
  uri STRING,
  content_hash STRING,
  width INT,
  height INT,
  bytes BIGINT,
  status STRING,
  error STRING,
  sentence STRING,
  polarity3 STRUCT<label: STRING, score: FLOAT, probs: ARRAY<FLOAT>>,
  polarity2 STRUCT<label: STRING, score: FLOAT, probs: ARRAY<FLOAT>>,
  mikels8 STRUCT<label: STRING, score: FLOAT, probs: ARRAY<FLOAT>>,
  valence STRUCT<value: FLOAT, probs: ARRAY<FLOAT>>,
  arousal STRUCT<value: FLOAT, probs: ARRAY<FLOAT>>,
  model STRING,
  run_id STRING,
  annotated_at TIMESTAMP,
  dt DATE
)
USING PARQUET
PARTITIONED BY (dt)
LOCATION 's3://bucket/emotions/annotations';

MSCK REPAIR TABLE emotions;
