"""The finished generations of one repeat, as columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kubevo_core.errors import UserError

__all__ = ["History"]

Column = list[float | int | None]


@dataclass(frozen=True)
class History:
    """Columns of equal length, one value a generation; None where it is not known.

    ``generation``, ``max``, ``mean``, ``median`` and ``min`` of the population's fitness, ``elite``
    with ``eliteLow`` and ``eliteHigh`` (95 %), ``best``, ``failed``, and from the start of the
    search ``frames`` and ``seconds``.
    """

    repeat: int
    repeats: int
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.columns["generation"])

    def __getitem__(self, column: str) -> npt.NDArray[np.float64]:
        """Return a column as an array, NaN where a value is not known.

        Raises:
            UserError: there is no such column.
        """
        found = self.columns.get(column)
        if found is None:
            raise UserError(f"history: expected one of {', '.join(self.columns)}, got {column!r}")
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def rows(self) -> list[dict[str, float | int | None]]:
        """Return one dict a generation."""
        names = list(self.columns)
        return [
            dict(zip(names, row, strict=True)) for row in zip(*self.columns.values(), strict=True)
        ]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, indexed by generation.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ModuleNotFoundError as exc:
            raise UserError("pandas is not installed: pip install pandas, or use .columns") from exc
        return pd.DataFrame(dict(self.columns)).set_index("generation")
