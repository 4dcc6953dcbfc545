"""Draws the pictures of a benchmark's results. The same results make the same files.

usage: draw.py RESULTS.json FOLDER
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "sqs-etl",
})

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

SIZES = [10, 100, 1_000, 10_000]
STYLES = {
    "ours": ("#c0392b", "o", "-"),
    "limit_copy": ("#444444", "s", "--"),
    "limit_copy_many": ("#888888", "s", ":"),
    "asyncpg_copy": ("#2471a3", "^", "-"),
    "psycopg3_copy": ("#5dade2", "v", "-"),
    "psycopg2_execute_values": ("#229954", "D", "-"),
    "psycopg2_executemany": ("#b7950b", "P", "-"),
    "powertools_insert": ("#7d3c98", "X", "-"),
}
GROWTH = {
    "batch": ("How cost grows with the size of the batch", "ms a batch", "batch_ms", "log", "log"),
    "columns": ("How cost grows with the number of columns, 100 messages in a batch", "us a row", "row_us", "linear", "linear"),
    "message": ("How cost grows with the size of a message, up to 100 in a batch, 6 MB at most", "us a message", "row_us", "linear", "linear"),
    "table": ("How cost grows with the size of the table, 100 messages in a batch", "ms a batch", "batch_ms", "symlog", "linear"),
}


def main() -> None:
    results, folder = Path(sys.argv[1]), Path(sys.argv[2])
    report = json.loads(results.read_text())
    for name, title, trip in [
        ("speed", "Rows a second, handler and Postgres on one core", "direct"),
        ("speed-1ms", "Rows a second, Postgres 1 ms away", {"proxied": 1}),
    ]:
        speed(report, folder / f"{name}.svg", title, trip)
    curves = {curve["name"]: curve["points"] for curve in report["curves"]}
    for name, (title, label, key, scale_x, scale_y) in GROWTH.items():
        if curves.get(name):
            growth(report, folder / f"growth-{name}.svg", curves[name], title, label, key, scale_x, scale_y, axis(report, name))
    if curves.get("processes"):
        functions(report, folder / "growth-functions.svg", curves)


def speed(report: dict, path: Path, title: str, trip) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    drawn = False
    for who, style in STYLES.items():
        points = [
            (cell["size"], rows_a_second(cell))
            for cell in report["measurements"]
            if cell["who"] == who
            and cell["trip"] == trip
            and cell["placement"] == "one_core"
            and cell["mix"] == "clean"
            and not cell["durable"]
            and cell["samples"]
        ]
        if points:
            label = next(cell["label"] for cell in report["measurements"] if cell["who"] == who)
            line(axes, sorted(points), label, style)
            drawn = True
    if drawn:
        axes.set(xscale="log", yscale="log", xlabel="messages in a batch", ylabel="rows a second", title=title)
        axes.set_xticks(SIZES)
        plain(axes.xaxis)
        plain(axes.yaxis)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        save(report, figure, path)
    plt.close(figure)


def growth(report, path, points, title, label, key, scale_x, scale_y, x_label) -> None:
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    figure.suptitle(title)
    xs = [point["x"] for point in points]
    line(time, [(point["x"], point[key]) for point in points], "all", STYLES["ours"])
    if key == "batch_ms" and scale_x == "log":
        fixed, each = fit([(point["x"], point[key]) for point in points])
        fitted = [(x, fixed + each * x) for x in xs]
        line(time, fitted, f"{fixed:.2g} ms + {each * 1e3:.2g} us a message", ("#444444", "", ":"))
    # What of it is whose, in the same unit as the whole.
    scale = {"batch_ms": lambda point, value: value * point["size"] / 1e3, "row_us": lambda point, value: value}[key]
    for part, name, color in [("cpu_row_us", "CPU of the function", "#e59866"), ("backend_row_us", "CPU of Postgres", "#2471a3")]:
        part_points = [(point["x"], scale(point, point[part])) for point in points if point[part] is not None]
        line(time, part_points, name, (color, ".", "--"))
    time.set(xscale=scale_x, yscale=scale_y, xlabel=x_label, ylabel=label)
    peaks = [(point["x"], point["peak_mib"]) for point in points if point["peak_mib"] is not None]
    line(memory, peaks, "peak memory", STYLES["ours"])
    memory.set(xscale=scale_x if scale_x == "symlog" else "linear", xlabel=x_label, ylabel="peak memory of the function, MiB")
    for axes in (time, memory):
        axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else None)
        if axes.get_xscale() == "symlog":
            axes.set_xscale("symlog", linthresh=10_000)
            axes.set_xticks(xs, minor=False)
            axes.tick_params(axis="x", rotation=45)
        plain(axes.xaxis)
        plain(axes.yaxis)
    time.legend(fontsize=8)
    save(report, figure, path)
    plt.close(figure)


def functions(report: dict, path: Path, curves: dict) -> None:
    figure, (time, memory) = plt.subplots(1, 2, figsize=(9.6, 3.8))
    figure.suptitle("How cost grows with concurrent functions")
    for name, label, style in [
        ("processes", "a process each", STYLES["ours"]),
        ("pool", "one process, a pool of so many", STYLES["asyncpg_copy"]),
    ]:
        points = curves.get(name, [])
        line(time, [(point["x"], point["rows_a_second"]) for point in points], label, style)
        line(memory, [(point["x"], point["peak_mib"]) for point in points if point["peak_mib"]], label, style)
    time.set(xscale="log", xlabel="batches of 100 under way at once", ylabel="rows a second, all together")
    memory.set(xlabel="batches of 100 under way at once", ylabel="peak memory with all events, MiB")
    for axes in (time, memory):
        axes.set_ylim(bottom=0)
        plain(axes.xaxis)
        plain(axes.yaxis)
    time.set_xticks([point["x"] for point in curves["processes"]])
    time.legend(fontsize=8)
    save(report, figure, path)
    plt.close(figure)


def rows_a_second(cell: dict) -> float:
    walls = sorted(sample["wall_ns"] for sample in cell["samples"])
    middle = len(walls) // 2
    median = walls[middle] if len(walls) % 2 else (walls[middle - 1] + walls[middle]) / 2
    return 1e9 * cell["size"] * cell["batches"] / median


def fit(points: list) -> tuple[float, float]:
    """The line through the points, each counting by its relative error: fixed part and slope."""
    weights = [1 / y**2 for _, y in points]
    w, wx, wy, wxx, wxy = (
        sum(weight * term(x, y) for weight, (x, y) in zip(weights, points, strict=True))
        for term in (lambda x, y: 1, lambda x, y: x, lambda x, y: y, lambda x, y: x * x, lambda x, y: x * y)
    )
    slope = (w * wxy - wx * wy) / (w * wxx - wx * wx)
    return (wy - slope * wx) / w, slope


def axis(report: dict, name: str) -> str:
    return next(curve["x"] for curve in report["curves"] if curve["name"] == name)


def line(axes, points: list, label: str, style: tuple) -> None:
    color, marker, dash = style
    axes.plot(*zip(*points, strict=True), color=color, marker=marker, linestyle=dash, markersize=4, linewidth=1.4, label=label)


def plain(axis) -> None:
    """Numbers as people write them, not as powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(report: dict, figure, path: Path) -> None:
    machine = report["machine"]
    pinned = "pinned" if machine["pinned"] else "not pinned"
    caption = (
        f"{machine['cpu']}, {machine['cores']} cores ({pinned}), {machine['kernel']}, PostgreSQL {machine['postgres']}, fsync off. "
        f"{machine['date']}, commit {machine['commit']}" + (", short form" if report["short"] else "")
    )
    figure.supxlabel(caption, fontsize=6.5, color="#666666")
    # A creation date would make each drawing another file.
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
