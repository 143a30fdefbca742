"""The one place that bends RecBole 1.2.1 to today's libraries. Each bend names the upstream issue."""

from __future__ import annotations

import warnings
from typing import Any

import scipy.sparse


def apply() -> None:
    """Apply every bend; calling it again changes nothing."""
    _restore_dok_update()
    _silence_future_warnings()


def _restore_dok_update() -> None:
    """Give ``dok_matrix`` its private ``_update`` back (RecBole#2034, #2090, #2185).

    SciPy 1.13 removed it; RecBole's LightGCN, NGCF, NCL, GCMC and SpectralCF fill their graph with it. The public
    ``update`` refuses to be called, so the dictionary beneath is filled, which is what ``_update`` did.
    """
    if hasattr(scipy.sparse.dok_matrix, "_update"):
        return

    def update(self: Any, entries: dict[tuple[int, int], float]) -> None:
        self._dict.update(entries)

    scipy.sparse.dok_matrix._update = update


def _silence_future_warnings() -> None:
    """Hide deprecation notices about RecBole's and Ray's own code, which their users cannot act upon."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")
    # Ray 2.6.3, the newest RecBole admits, imports pkg_resources, which setuptools < 81 still has.
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning, module=r"ray\.")
