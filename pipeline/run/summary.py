"""Summary of a run's record for the terminal."""

from pipeline.errors import STATUSES
from pipeline.table.run_record import RunRecord
from pipeline.text import duration


def summary(record: RunRecord, output: str) -> str:
    """Return the counts by status, the most frequent labels of each scheme, images/s, paths, and a query, as text.

    A run without new images gets one line.
    """
    counts, timings = record.counts, record.timings
    rows = counts.rows
    counted = "rows" if record.kept_columns else "images"
    if not rows:
        others = f"{counts.listed - counts.suppressed:,} annotated before, {counts.suppressed:,} on the list of --suppress,"
        known = others if counts.suppressed else "all annotated before"
        return f"nothing new: {counts.listed:,} {counted} listed, {known} by {record.model}, run {record.run_id}"
    ok = counts.status.get("ok", 0)
    lines = [f"{ok:,} of {rows:,} {counted} annotated by {record.model}, run {record.run_id}", ""]
    width = max(len(status) for status in counts.status)
    for status, count in counts.status.items():
        lines.append(f"  {status:<{width}}  {count:>9,}  {count / rows:>6.1%}  {STATUSES.get(status, '')}")
    if retried := sum(counts.retried.values()):
        lines += ["", f"  {retried:,} retried after a failure in an earlier run, {counts.retried.get('ok', 0):,} of them annotated now"]
    if counts.overtaken:
        lines += ["", f"  {counts.overtaken:,} more were annotated by another run meanwhile"]
    if counts.suppressed:
        lines += ["", f"  {counts.suppressed:,} more are on the list of --suppress, and have no row"]
    if copied := counts.reposts.total:
        origin = f"{counts.reposts.run:,} of this run, {counts.reposts.earlier:,} of earlier runs"
        lines += ["", f"  {copied:,} copied from images with the same bytes: {origin}"]
    lines.append("")
    width = max(len(scheme) for scheme in counts.labels)
    for scheme, labels in counts.labels.items():
        total = max(sum(labels.values()), 1)
        most_frequent = sorted(labels.items(), key=lambda entry: -entry[1])[:4]
        shares = ", ".join(f"{label} {count / total:.0%}" for label, count in most_frequent if count)
        lines.append(f"  {scheme:<{width}}  {shares}" + " (zero-shot)" * (scheme in record.zero_shot))
    rate = timings.get("images_per_second")  # None if all blocks were written before
    busy = ", ".join(
        f"{workers} busy {timings[f'{workers}_busy']:.0%}" for workers in ("annotators", "loaders") if f"{workers}_busy" in timings
    )
    speed = f"{rate:.1f} images/s while annotating{busy and f' ({busy})'}; " if rate else ""
    missing = record.tuning.get("loaders_missing")
    waited = [f"the GPUs waited for images: {missing:,} more loaders would have kept them busy"] if missing else []
    total_time = duration(sum(timings[f"{part}_seconds"] or 0 for part in ("plan", "ray", "annotate", "commit")))
    table = f"{output.rstrip('/')}/{record.files[0].removesuffix('00000.parquet')}*.parquet"
    first = next(iter(counts.labels))
    field = "label" if record.schemes[first] == "categorical" else "value"
    query = f"SELECT {first}.{field}, count(*) FROM '{table}' GROUP BY ALL ORDER BY 2 DESC"
    lines += ["", f"{speed}{total_time} in all", *waited, f"table   {table}", f"record  {output.rstrip('/')}/runs/{record.run_id}.json"]
    lines += [f"report  {output.rstrip('/')}/runs/{record.run_id}.html", f"nights  {output.rstrip('/')}/index.html"]
    return "\n".join([*lines, f"SQL     {query}"])
