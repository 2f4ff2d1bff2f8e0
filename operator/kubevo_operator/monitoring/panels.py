"""The few kinds of Grafana panel that the dashboard uses, and their places on its grid.

Plain dictionaries of Grafana's dashboard model (schemaVersion 39, Grafana 11 and later). What Grafana
defaults anyway is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["COLUMNS", "DATASOURCE", "Panel", "Query", "Row", "laid_out"]

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "alertlist"]
COLUMNS = 24
ROW_HEIGHT, PANEL_HEIGHT = 1, 8
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """A PromQL expression and how its series are called; ``instant`` asks for the last value."""

    expr: str
    legend: str
    instant: bool = False


class Panel(NamedTuple):
    """One panel: ``unit`` is Grafana's id of a unit, ``width`` counts of 24 columns.

    ``stacked`` adds the series up; ``below`` and ``above`` bound the axis.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False
    above: float | None = None
    below: float | None = None
    options: Mapping[str, Any] | None = None


class Row(NamedTuple):
    """A headline and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def laid_out(rows: Iterable[Row]) -> list[Json]:
    """Return the panels of ``rows`` with ids and places, from left to right and downwards."""
    found: list[Json] = []
    y = 0
    for row in rows:
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": ROW_HEIGHT},
                "panels": [],
            }
        )
        y, x = y + ROW_HEIGHT, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                y, x = y + PANEL_HEIGHT, 0
            place = {"x": x, "y": y, "w": panel.width, "h": PANEL_HEIGHT}
            found.append(_document(panel) | {"id": len(found) + 1, "gridPos": place})
            x += panel.width
        y += PANEL_HEIGHT
    return found


def _document(panel: Panel) -> Json:
    found: Json = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": dict(panel.options or _OPTIONS[panel.kind]),
    }
    if panel.queries:
        found["targets"] = [_target(query, i) for i, query in enumerate(panel.queries)]
    return found


def _defaults(panel: Panel) -> Json:
    found: Json = {"unit": panel.unit}
    if panel.above is not None:
        found["min"] = panel.above
    if panel.below is not None:
        found["max"] = panel.below
    if panel.kind == "timeseries":
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 0,
            "showPoints": "auto",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return found


def _target(query: Query, index: int) -> Json:
    found: Json = {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend,
        "range": not query.instant,
    }
    return found | {"instant": True} if query.instant else found


_OPTIONS: dict[Kind, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value_and_name",
    },
    "alertlist": {
        "alertName": "Kubevo",
        "dashboardAlerts": False,
        "maxItems": 50,
        "sortOrder": 1,
        "stateFilter": {"firing": True, "pending": True, "noData": False, "error": True},
        "viewMode": "list",
    },
}
