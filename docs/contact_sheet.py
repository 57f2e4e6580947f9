"""Draws photos of an output beside their labels, to see what a model says.

python docs/contact_sheet.py demo/output docs/images/demo.jpg
"""

import argparse
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

COLUMNS, SIDE, TEXT = 7, 150, 84
LABELS = ("polarity3", "mikels8")
VALUES = ("valence", "arousal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the output of a run over local images")
    parser.add_argument("to", type=Path, help="the picture to write")
    args = parser.parse_args()
    columns = ["uri", "status", *LABELS, *VALUES]
    rows = [row for file in sorted(args.output.glob("annotations/*/*.parquet")) for row in pq.read_table(file, columns=columns).to_pylist()]
    shown = sorted((row for row in rows if row["status"] == "ok" and "_" not in Path(row["uri"]).stem), key=lambda row: row["uri"])
    height = -(-len(shown) // COLUMNS) * (SIDE + TEXT)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + 10), height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, row in enumerate(shown):
        left, top = i % COLUMNS * (SIDE + 10) + 5, i // COLUMNS * (SIDE + TEXT) + 5
        with Image.open(unquote(urlparse(row["uri"]).path)) as photo:
            sheet.paste(ImageOps.fit(photo.convert("RGB"), (SIDE, SIDE)), (left, top))
        lines = [f"{row[name]['label']} ({100 * row[name]['score']:.0f} %)" for name in LABELS]
        lines += [f"{name} {row[name]['value']:.1f}" for name in VALUES]
        draw.multiline_text((left, top + SIDE + 3), "\n".join(lines), fill="black", font=font)
    sheet.save(args.to, quality=80)


if __name__ == "__main__":
    main()
