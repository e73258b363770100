"""Draws a comparison as a PNG or SVG: checks per run against delay, one point for each policy."""

from pathlib import Path

from orchestrator.errors import PlotMissing, PlotUnusable
from orchestrator.traces.comparison import Comparison

ENDINGS = frozenset({".png", ".svg"})
INCHES = (8.0, 5.0)
DOTS_PER_INCH = 150


def check_plot(path: Path) -> None:
    """Look whether a plot can be drawn there, before the work is done.

    Raises:
        PlotMissing: matplotlib is not installed.
        PlotUnusable: It is no place for a PNG or SVG.
    """
    if path.suffix.lower() not in ENDINGS:
        raise PlotUnusable(path=path, problem="its name ends in neither .png nor .svg")
    if not path.parent.is_dir():
        raise PlotUnusable(path=path, problem=f"there is no folder {path.parent}")
    try:
        import matplotlib.figure  # noqa: F401, PLC0415 - an extra, and slow to load
    except ImportError:
        raise PlotMissing from None


def plot(comparison: Comparison, title: str, path: Path) -> None:
    """Draw a comparison.

    Raises:
        PlotMissing: matplotlib is not installed.
        PlotUnusable: It can't be written there.
    """
    check_plot(path)
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    for policy, points in comparison.curves.items():
        style = "--" if "optimum" in policy else "-"
        axes.plot(*zip(*points, strict=True), style, linewidth=1, label=f"{policy}, dial turned")
    for figures in comparison.figures:
        axes.plot(figures.checks_per_run, figures.delay_mean_seconds, "o", label=figures.policy)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("checks per run")
    axes.set_ylabel("mean delay in seconds")
    # A dollar sign would begin a formula.
    axes.set_title(title.replace("$", r"\$"))
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except OSError as error:
        raise PlotUnusable(path=path, problem=error.strerror or "it can't be written") from None
