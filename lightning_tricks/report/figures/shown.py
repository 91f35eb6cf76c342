"""A figure that a notebook shows without a magic, and that opens a window elsewhere; it imports matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure of no window and no global state, until it is shown."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()

    def show(self, warn: bool = True) -> None:
        """In a notebook below the cell, elsewhere in a window; where there is no screen, matplotlib says so."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            notebook: Any = None
        else:
            notebook = get_ipython()
        if notebook is not None:
            display(self)
            return
        import matplotlib.pyplot as plt

        manager: Any = plt.figure().canvas.manager
        manager.canvas.figure = self
        self.set_canvas(manager.canvas)
        plt.show()
