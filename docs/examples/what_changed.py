"""Print what changed this week: the change of each label's share since the week before, and whether it is beyond chance.

    python docs/examples/what_changed.py OUTPUT --posts posts.parquet --scheme polarity2

Posts are a table with the columns uri and day; the newest day ends this week. Without --posts, posts are made up.
"""

import argparse

import duckdb
from mood_of_topics import committed

MADE_UP = """
CREATE TABLE posts AS
SELECT uri, DATE '2026-11-01' + (hash(uri, 1) % 14)::INTEGER AS day FROM annotations
"""

# The difference of two shares with its 95 % interval (with fewer than about ten images for a label, Newcombe's would be better).
CHANGE = """
WITH seen AS (
    SELECT {scheme}.label AS label, day > (SELECT max(day) FROM posts) - 7 AS this_week
    FROM posts JOIN annotations USING (uri)
    WHERE status = 'ok' AND {scheme}.label IS NOT NULL AND day > (SELECT max(day) FROM posts) - 14
), weeks AS (
    SELECT count(*) FILTER (this_week) AS n, count(*) FILTER (NOT this_week) AS n_before FROM seen
), shares AS (
    SELECT label, count(*) FILTER (this_week) / any_value(n) AS share, count(*) FILTER (NOT this_week) / any_value(n_before) AS before,
           any_value(n) AS n, any_value(n_before) AS n_before
    FROM seen, weeks GROUP BY label
), moved AS (
    SELECT *, share - before AS change, 1.96 * sqrt(share * (1 - share) / n + before * (1 - before) / n_before) AS give_or_take FROM shares
)
SELECT label, round(before, 3) AS before, round(share, 3) AS this_week, round(change, 3) AS change,
       round(give_or_take, 3) AS give_or_take, abs(change) > give_or_take AS beyond_chance
FROM moved ORDER BY abs(change) DESC
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output")
    parser.add_argument("--posts", help="a Parquet or CSV file with the columns uri and day")
    parser.add_argument("--scheme", default="polarity2", help="a categorical scheme")
    args = parser.parse_args()
    base: duckdb.DuckDBPyConnection = committed(args.output)
    if args.posts:
        base.execute(f"CREATE TABLE posts AS SELECT uri, day::DATE AS day FROM '{args.posts}'")
    else:
        print("posts are made up")
        base.execute(MADE_UP)
    base.sql(CHANGE.format(scheme=args.scheme)).show()


if __name__ == "__main__":
    main()
