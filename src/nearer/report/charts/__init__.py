"""Charts as inline SVG: no script, no network, colours by CSS class.

Dark mode and print follow from the style sheet.  A chart is drawn for one width in CSS pixels and
never scaled up, so that its text keeps its size; the page asks for a wide and a narrow one and
shows whichever fits.  A function returns `None` where there is nothing to draw.
"""

from nearer.report.charts.drawing import NARROW, WIDE, Point, ticks
from nearer.report.charts.histograms import margins, similarities
from nearer.report.charts.lines import curve, timeline
from nearer.report.charts.maps import COLOURS, document_map
from nearer.report.charts.planes import planes
from nearer.report.charts.rows import Mark, Reference, waterfall, whiskers
from nearer.report.charts.scatter import Axes, frontier, scatter

__all__ = [
    "COLOURS",
    "NARROW",
    "WIDE",
    "Axes",
    "Mark",
    "Point",
    "Reference",
    "curve",
    "document_map",
    "frontier",
    "margins",
    "planes",
    "scatter",
    "similarities",
    "ticks",
    "timeline",
    "waterfall",
    "whiskers",
]
