"""Writes the report of the results: the tables of docs/internals/performance.md, and docs/internals/performance.svg.

    python bench/report.py

Reads bench/results/*.json of the suites that have been run. In the page only the text between the tables' markers is replaced.
The same numbers give the same chart, byte by byte. Its description has a hash of them. So docs/generate.py --check can report
an outdated page or chart without matplotlib. Needs matplotlib: bench/requirements.lock.
"""

import sys
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import tables

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/internals/performance.md"
CHART: Final = ROOT / "docs/internals/performance.svg"
SIGNALS: Final = ("metrics", "logs", "traces")
# These colours can be distinguished by people with colour blindness.
COLOURS: Final = {"ours": "#0072b2", "collector": "#e69f00", "prometheus": "#009e73", "victoria_metrics": "#999999"}
LABELS: Final = {
    "ours": "InfraSage",
    "collector": "OpenTelemetry Collector",
    "prometheus": "Prometheus",
    "victoria_metrics": "VictoriaMetrics",
}


def draw(axes: Axes, title: str, groups: list[tuple[str, dict[str, Any]]], names: list[str]) -> None:
    """Draw a bar for each name in each group. The bar ends at the median, a line goes from minimum to maximum, and our ratio is
    above it."""
    width = 0.8 / len(names)
    for at, name in enumerate(names):
        for position, (_, result) in enumerate(groups):
            low, middle, high = result[name]["rate"]
            x = position + (at - (len(names) - 1) / 2) * width
            label = LABELS[name] if position == 0 else None
            axes.bar(x, middle, width, color=COLOURS[name], label=label)
            axes.plot([x, x], [low, high], color="black", linewidth=1)
            if name == "ours":
                text = f"{tables.ratio(result, names[1]):.1f}×"
                axes.annotate(text, (x, high), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], fontsize=8)
    axes.set_yscale("log")
    # Bars begin at 1,000, since a logarithmic axis has no zero.
    axes.set_ylim(1_000, 10_000_000)
    axes.minorticks_off()
    axes.grid(visible=True, axis="y", linewidth=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def chart() -> None:
    mpl.rcParams["svg.hashsalt"] = "infrasage"  # without it, ids are random
    mpl.rcParams["svg.fonttype"] = "none"
    found = tables.load("gateway")
    figure = Figure(figsize=(10, 9), layout="constrained")
    grid = figure.subplots(3, 3, sharey=True)
    for line, (transport, title) in enumerate((("http", "OTLP over HTTP"), ("grpc", "OTLP over gRPC"))):
        for column, signal in enumerate(SIGNALS):
            of_both = [one for one in found if (one["transport"], one["signal"]) == (transport, signal)]
            groups = [(f"{one['items']:,}", one) for one in sorted(of_both, key=lambda one: int(one["items"]))]
            draw(grid[line][column], f"{title}, {signal}", groups, ["ours", "collector"])
    native = [(f"{one['items']:,}", one) for one in found if one["transport"] == "native"]
    draw(grid[2][0], "native JSON, and the Collector's OTLP", native, ["ours", "collector"])
    writes = tables.load("remote_write")
    labelled = [(f"{one['samples']:,} by {one.get('connections', 0)}", one) for one in writes]
    others = tables.peers(writes[0]) if writes else ["prometheus"]
    draw(grid[2][1], "remote write, samples by connections", labelled, ["ours", *others])
    legend = grid[2][2]
    legend.axis("off")
    known = {
        label: handle
        for axes in (grid[0][0], grid[2][1])
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    legend.legend(known.values(), known.keys(), loc="center", frameon=False, fontsize=9)
    figure.supylabel("records per CPU-second of the process: median, minimum to maximum", fontsize=9)
    figure.supxlabel("records a request; the number above: our ratio to the next bar", fontsize=9)
    metadata: Any = {"Date": None, "Creator": None, "Description": f"bench/results {tables.charted()}"}
    figure.savefig(CHART, format="svg", metadata=metadata)


def main() -> None:
    PAGE.write_text(tables.fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    chart()


if __name__ == "__main__":
    main()
