"""Draw the rooms of pipeline/ and ugrie/ and the imports between them.

    python docs/architecture.py docs/architecture.svg

Imports come from the code (grimp), layers from the import-linter contracts in pyproject.toml, and captions from the headings of
docs/architecture.md. Layers run from top to bottom. Layers that don't depend on each other share a row. An import that follows from
others (a imports b, b imports c, a imports c) is left out.
"""

import random
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "ugrie")
Edges = dict[str, set[str]]

FOLDER_WIDTH, FILE_WIDTH, LANE_WIDTH = 184, 92, 12  # pixels; a lane is where an arrow passes a row
FOLDER_HEIGHT, FILE_HEIGHT = 46, 30
GAP, ROW, PADDING, TITLE, BAR = 16, 72, 20, 52, 56
STARTS, SWEEPS = 40, 40  # orders that the layout begins with; passes over the rows, each
STYLE = """
  .page { fill: #ffffff } .panel { fill: #f6f8fa; stroke: #d0d7de }
  .folder { fill: #ddf4ff; stroke: #218bff } .file { fill: #ffffff; stroke: #8c959f }
  .arrow { fill: none; stroke: #6e7781; stroke-width: 1.4 } .head { fill: #6e7781 }
  text { font-family: -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; fill: #1f2328; text-anchor: middle }
  .title { font-size: 17px; font-weight: 600 } .name { font-size: 14px; font-weight: 600 } .caption { font-size: 11.5px; fill: #424a53 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .panel { fill: #151b23; stroke: #3d444d }
    .folder { fill: #0c2d6b; stroke: #388bfd } .file { fill: #212830; stroke: #656c76 }
    .arrow { stroke: #9198a1 } .head { fill: #9198a1 } text { fill: #f0f6fc } .caption { fill: #d1d7e0 }
  }"""

SIZE = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"'
HEAD = f'<marker id="head" {SIZE}><path class="head" d="M0 0L8 4L0 8Z"/></marker>'


@dataclass
class Box:
    """A room, or the lane of an arrow that passes a row. `x` is its centre."""

    name: str
    width: int
    height: int
    x: float = 0.0

    @property
    def is_lane(self) -> bool:
        return self.width == LANE_WIDTH


def layers() -> dict[str, list[list[str]]]:
    """The rooms of each package, top to bottom, as the import-linter contracts state them; rooms of one layer together."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    found = {contract["containers"][0]: contract["layers"] for contract in contracts if "containers" in contract}
    return {package: [re.split(r"\s*[|:]\s*", layer) for layer in found[package]] for package in PACKAGES}


def captions() -> dict[str, str]:
    """Return each folder's purpose, from the headings of the page: `pipeline/run` -> one run, from plan to record."""
    return dict(re.findall(r"^### `([\w/]+?)/`: (.*)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE))


def imports() -> tuple[dict[str, Edges], set[str]]:
    """Imports between the rooms of each package; and the rooms of ugrie that pipeline imports."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    edges: dict[str, Edges] = {package: {} for package in PACKAGES}
    used: set[str] = set()
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            (package, room), (other, other_room) = ((*name.split("."), "")[:2] for name in (importer, imported))
            if package != other:
                used.add(other_room)
            elif room and other_room and room != other_room:
                edges[package].setdefault(room, set()).add(other_room)
    return edges, used


def reachable(edges: Edges, room: str) -> set[str]:
    """All rooms that a room imports, directly or through others."""
    return set().union(*({other} | reachable(edges, other) for other in edges.get(room, ())))


def reduced(edges: Edges) -> Edges:
    """The imports that don't follow from others."""
    return {room: {b for b in others if not any(b in reachable(edges, c) for c in others if c != b)} for room, others in edges.items()}


def rows_of(order: Sequence[Sequence[str]], edges: Edges) -> list[list[str]]:
    """Layers as rows: a layer joins the row above it, unless a room there imports one of its rooms, directly or through others."""
    rows: list[list[str]] = []
    for layer in order:
        if rows and not any(room in reachable(edges, above) for above in rows[-1] for room in layer):
            rows[-1].extend(layer)
        else:
            rows.append(list(layer))
    return rows


class Panel:
    """One package: its rooms in rows, and the arrows between them."""

    def __init__(self, package: str, order: Sequence[Sequence[str]], edges: Edges):
        self.package = package
        edges = reduced(edges)
        names = rows_of(order, edges)
        row_of = {name: i for i, row in enumerate(names) for name in row}
        self.rows = [[self._room(name) for name in row] for row in names]
        boxes = {box.name: box for row in self.rows for box in row}
        self.paths: list[list[Box]] = []
        for room, others in sorted(edges.items()):
            for other in sorted(others):
                passed = range(row_of[room] + 1, row_of[other])
                lanes = [Box(f"{room} > {other}", LANE_WIDTH, FOLDER_HEIGHT) for _ in passed]
                for row, lane in zip(passed, lanes, strict=True):
                    self.rows[row].append(lane)
                self.paths.append([boxes[room], *lanes, boxes[other]])
        self._arrange()

    def _room(self, name: str) -> Box:
        is_folder = (ROOT / self.package / name).is_dir()
        return Box(name, FOLDER_WIDTH if is_folder else FILE_WIDTH, FOLDER_HEIGHT if is_folder else FILE_HEIGHT)

    def _arrange(self) -> None:
        """Place the boxes: of some orders to begin with, keep the one that ends with the fewest crossings and the straightest arrows."""
        pairs = [pair for path in self.paths for pair in pairwise(path)]
        near: dict[int, list[tuple[Box, float]]] = {id(box): [] for row in self.rows for box in row}
        for above, below in pairs:
            weight = 1 + 4 * (above.is_lane + below.is_lane)
            near[id(above)].append((below, weight))
            near[id(below)].append((above, weight))
        draw, found = random.Random(0), []
        for _ in range(STARTS):
            for row in self.rows:
                draw.shuffle(row)
                self._place(row, [0.0] * len(row))
            for sweep in range(SWEEPS):
                for row in self.rows if sweep % 2 else self.rows[::-1]:
                    wanted = {id(box): _mean([*near[id(box)], (Box("centre", 0, 0), 1.0)]) for box in row}
                    if sweep < SWEEPS // 2:
                        row.sort(key=lambda box: wanted[id(box)])
                    self._place(row, [wanted[id(box)] for box in row])
            length = sum(abs(above.x - below.x) * (1 + above.is_lane + below.is_lane) for above, below in pairs)
            found.append((self._crossings(pairs), round(length), [[(box, box.x) for box in row] for row in self.rows]))
        *_, best = min(found, key=lambda each: each[:2])
        left = min(x - box.width / 2 for row in best for box, x in row)
        self.rows = [[box for box, _ in row] for row in best]
        for box, x in (each for row in best for each in row):
            box.x = round(x - left + PADDING, 1)
        self.width = max(box.x + box.width / 2 for row in self.rows for box in row) + PADDING

    def _crossings(self, pairs: Sequence[tuple[Box, Box]]) -> int:
        row_of = {id(box): i for i, row in enumerate(self.rows) for box in row}
        lines = [(row_of[id(above)], above.x, below.x) for above, below in pairs]
        return sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a, b in combinations(lines, 2))

    @staticmethod
    def _place(row: Sequence[Box], wanted: Sequence[float]) -> None:
        """Put the boxes of a row side by side without overlap, near the wanted positions on the whole."""
        end = -float("inf")
        for box, x in zip(row, wanted, strict=True):
            box.x = max(x, end + GAP + box.width / 2)
            end = box.x + box.width / 2
        shift = sum(x - box.x for box, x in zip(row, wanted, strict=True)) / len(row)
        for box in row:
            box.x += shift

    @property
    def height(self) -> float:
        return TITLE + len(self.rows) * ROW

    def draw(self, left: float, top: float, captions: Mapping[str, str]) -> Iterator[str]:
        """The panel as SVG elements."""
        middle = {id(box): top + TITLE + i * ROW + FOLDER_HEIGHT / 2 for i, row in enumerate(self.rows) for box in row}
        yield f'<rect class="panel" x="{left:.0f}" y="{top:.0f}" width="{self.width:.0f}" height="{self.height:.0f}" rx="8"/>'
        yield _text("title", left + self.width / 2, top + 32, f"{self.package}/")
        for path in self.paths:
            yield self._arrow(path, left, middle)
        for row in self.rows:
            for box in (box for box in row if not box.is_lane):
                x, y = left + box.x, middle[id(box)]
                kind = "folder" if box.width == FOLDER_WIDTH else "file"
                corner = f'x="{x - box.width / 2:.1f}" y="{y - box.height / 2:.1f}"'
                yield f'<rect class="{kind}" {corner} width="{box.width}" height="{box.height}" rx="5"/>'
                if kind == "folder":
                    yield _text("name", x, y - 3, f"{box.name}/")
                    yield _text("caption", x, y + 14, captions.get(f"{self.package}/{box.name}", ""))
                else:
                    yield _text("name", x, y + 5, box.name)

    @staticmethod
    def _arrow(path: Sequence[Box], left: float, middle: Mapping[int, float]) -> str:
        """A line from a room's lower edge, straight through the lanes of the rows it passes, to the other's upper edge."""
        x, y = left + path[0].x, middle[id(path[0])] + path[0].height / 2
        line = f"M{x:.1f} {y:.1f}"
        for box in path[1:]:
            to_x, to_y = left + box.x, middle[id(box)] - box.height / 2
            half = (y + to_y) / 2
            line += f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}"
            x, y = to_x, to_y
            if box is not path[-1]:
                y += box.height
                line += f"V{y:.1f}"
        return f'<path class="arrow" d="{line}" marker-end="url(#head)"/>'


def _mean(near: Sequence[tuple[Box, float]]) -> float:
    """The weighted mean of neighbours' positions."""
    return sum(box.x * weight for box, weight in near) / sum(weight for _, weight in near)


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def picture() -> str:
    """The whole picture, as SVG."""
    edges, used = imports()
    order, said = layers(), captions()
    pipeline, ugrie = (Panel(package, order[package], edges[package]) for package in PACKAGES)
    between, top = 28, PADDING + BAR + 32
    lower = top + pipeline.height - ugrie.height
    width = 2 * PADDING + pipeline.width + between + ugrie.width
    height = top + max(pipeline.height, ugrie.height) + PADDING
    right = PADDING + pipeline.width + between
    bridge = top + 40
    elements = [
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}" rx="8"/>',
        f'<rect class="panel" x="{PADDING}" y="{PADDING}" width="{width - 2 * PADDING:.0f}" height="{BAR}" rx="8"/>',
        _text("title", width / 2, PADDING + 24, "jobs/"),
        _text("caption", width / 2, PADDING + 43, "the scripts that are submitted: each parses its arguments and calls one function"),
        _vertical(PADDING + pipeline.width / 2, PADDING + BAR, top),
        _vertical(right + ugrie.width * 2 / 3, PADDING + BAR, lower),
        f'<path class="arrow" d="M{right - between:.1f} {bridge:.1f}H{right + ugrie.width / 3:.1f}V{lower:.1f}" marker-end="url(#head)"/>',
        *pipeline.draw(PADDING, top, said),
        *ugrie.draw(right, lower, said),
        _text("caption", right + ugrie.width / 3 - 40, bridge - 10, f"imports {', '.join(sorted(used))}"),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}">',
            f"<title>The rooms of pipeline/ and ugrie/, and which imports which</title><style>{STYLE}\n</style>",
            f"<defs>{HEAD}</defs>",
            *elements,
            "</svg>\n",
        ]
    )


def _vertical(x: float, start: float, end: float) -> str:
    return f'<path class="arrow" d="M{x:.1f} {start:.1f}V{end:.1f}" marker-end="url(#head)"/>'


def main() -> None:
    (target,) = sys.argv[1:]
    Path(target).write_text(picture())


if __name__ == "__main__":
    main()
