"""Print the mood of each topic by day: join images with the posts they were in, with 95 % intervals for shares and means.

    python docs/examples/mood_of_topics.py OUTPUT --posts posts.parquet

Posts are a table with the columns uri, topic, day. Without --posts, posts are made up.
"""

import argparse

import duckdb

MADE_UP = """
CREATE TABLE posts AS
SELECT uri, ['travel', 'food', 'news'][(1 + hash(uri) % 3)::BIGINT] AS topic, DATE '2026-11-01' + (hash(uri, 1) % 4)::INTEGER AS day
FROM annotations
"""

# Wilson's interval for a share, the normal interval for a mean. An image counts once for each post that shows it.
MOOD = """
WITH seen AS (
    SELECT topic, day, polarity2.label = 'positive' AS positive, valence.value AS valence
    FROM posts JOIN annotations USING (uri)
    WHERE status = 'ok' AND polarity2.label IS NOT NULL
), counted AS (
    SELECT topic, day, count(*) AS n, avg(positive::INTEGER) AS share, avg(valence) AS valence, coalesce(stddev(valence), 0) AS deviation
    FROM seen GROUP BY ALL
)
SELECT
    topic, day, n,
    round(share, 3) AS positive,
    round((share + 1.96^2 / (2 * n) - 1.96 * sqrt(share * (1 - share) / n + 1.96^2 / (4 * n^2))) / (1 + 1.96^2 / n), 3) AS at_least,
    round((share + 1.96^2 / (2 * n) + 1.96 * sqrt(share * (1 - share) / n + 1.96^2 / (4 * n^2))) / (1 + 1.96^2 / n), 3) AS at_most,
    round(valence, 2) AS valence,
    round(1.96 * deviation / sqrt(n), 2) AS give_or_take
FROM counted ORDER BY topic, day
"""

# Of the lists of files, which a run of thousands of files has, only those that a record names count.
FILES = """
WITH runs AS (FROM read_json($runs, columns = {files: 'VARCHAR[]', file_list: 'VARCHAR', file_lists: 'VARCHAR[]'}))
SELECT list($output || '/' || file) FROM (SELECT unnest(files) AS file FROM runs
WHERE file_list IS NULL OR file_list IN (SELECT unnest(file_lists) FROM runs))
"""


def committed(output: str) -> duckdb.DuckDBPyConnection:
    """Return a database whose view `annotations` holds the rows of committed runs, the newest of each image."""
    base = duckdb.connect()
    files = base.execute(FILES, {"output": output, "runs": f"{output}/runs/**/*.json"}).fetchone()[0]
    newest = "QUALIFY row_number() OVER (PARTITION BY image_id ORDER BY annotated_at DESC) = 1"
    base.execute(f"CREATE VIEW annotations AS SELECT * FROM read_parquet({files}, union_by_name = true) {newest}")
    return base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("--posts", help="a Parquet or CSV file with the columns uri, topic, day")
    args = parser.parse_args()
    base = committed(args.output)
    if args.posts:
        base.execute(f"CREATE TABLE posts AS SELECT uri, topic, day::DATE AS day FROM '{args.posts}'")
    else:
        print("posts are made up")
        base.execute(MADE_UP)
    base.sql(MOOD).show(max_rows=1000)


if __name__ == "__main__":
    main()
