"""The one place that bends RecBole 1.2 to today's libraries. Each bend names the upstream issue.

RecBole 1.2.0 is what this package asks for, because 1.2.1 demands a Ray that no Python after 3.11 has; both work.
Libraries are imported where they are bent, so that the version of RecBole can be asked for before anything else.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import types
import warnings
from contextlib import contextmanager
from typing import Any, Iterator

from recbole_rlmrec.errors import SettingError

#: What the bends were written for.
RECBOLE = "1.2"


@functools.cache
def apply() -> None:
    """Apply every bend; calling it again changes nothing.

    Raises:
        SettingError: RecBole is of another version than 1.2.x.
    """
    require_recbole()
    _silence_future_warnings()
    _restore_dok_update()
    _name_numpy_types()
    _import_quick_start_without_ray()
    _write_columns_back()
    _drop_in_training_only()
    _score_pairs()


def require_recbole() -> None:
    """Refuse another RecBole than the one that this package was written for.

    Raises:
        SettingError: it is not of version 1.2.x.
    """
    try:
        found = importlib.metadata.version("recbole")
    except importlib.metadata.PackageNotFoundError:
        found = "not installed"
    if not found.startswith(f"{RECBOLE}."):
        raise SettingError(f"RecBole is {found}, and {RECBOLE}.x is needed: pip install 'recbole==1.2.0'")


def _silence_future_warnings() -> None:
    """Hide notices about RecBole's own code, which its users cannot act upon."""
    for category in (FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\.")
    # pandas 3 hands out its columns read-only; RecBole makes tensors of them, which it does not write to.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning, r"recbole\.")


def _restore_dok_update() -> None:
    """Give ``dok_matrix`` its private ``_update`` back (RecBole#2034, #2090, #2185).

    SciPy 1.13 removed it; RecBole's LightGCN, NGCF, NCL, GCMC and SpectralCF fill their graph with it. The public
    ``update`` refuses to be called, so the dictionary beneath is filled, which is what ``_update`` did.
    """
    import scipy.sparse

    if hasattr(scipy.sparse.dok_matrix, "_update"):
        return

    def update(self: Any, entries: dict[tuple[int, int], float]) -> None:
        self._dict.update(entries)

    scipy.sparse.dok_matrix._update = update


def _name_numpy_types() -> None:
    """Let RecBole's ``Config`` name NumPy's types without those that NumPy 2 took away (RecBole#2078, #2155, #2174).

    It sets ``np.float`` and others to ``np.float_`` and others, which its own code and its users' then read.
    """
    import numpy as np
    from recbole.config import Config

    names = {
        "bool": np.bool_,
        "int": np.int_,
        "float": np.float64,
        "complex": np.complex128,
        "object": np.object_,
        "str": np.str_,
        "long": np.int_,
        "unicode": np.str_,
    }

    def compatibility_settings(self: Any) -> None:
        for name, kind in names.items():
            setattr(np, name, kind)

    Config.compatibility_settings = compatibility_settings


def _import_quick_start_without_ray() -> None:
    """Import ``recbole.quick_start`` where Ray is not installed (RecBole#1518).

    It imports Ray for one line of its objective function for Ray, which nobody can need who has no Ray.
    """
    if importlib.util.find_spec("ray") is not None or "recbole.quick_start" in sys.modules:
        return
    absent = types.ModuleType("ray")
    absent.tune = _NoRay()  # type: ignore[attr-defined]
    sys.modules["ray"] = absent
    try:
        importlib.import_module("recbole.quick_start")
    finally:
        del sys.modules["ray"]


class _NoRay:
    """Stands for ``ray.tune`` where it is not installed."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError("A search with Ray needs the package 'ray': pip install 'recbole-rlmrec[ray]'")


@contextmanager
def anomaly_detection_as_it_is() -> Iterator[None]:
    """Undo what the import of RecBole's sequential models does to torch.

    One of them (SINE) turns on anomaly detection for the whole process, which slows down every training.
    """
    import torch

    before = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(before)


# ---------------------------------------------------------------------- methods that are compiled again


def _write_columns_back() -> None:
    """Let RecBole's datasets change the columns that they mean to change (RecBole#2203, #2212, #2215).

    In pandas 3 ``frame[column].fillna(0, inplace=True)`` changes a copy, in silence: a gap in a ``.user`` file becomes
    the id -9223372036854775808. And ``series.agg(len)`` is the length of the series, no longer one of each element.
    Both are put in their lasting form; with pandas 2 it does the same.
    """
    for name in ("dataset", "kg_dataset", "sequential_dataset", "customized_dataset"):
        _compile_again(f"recbole.data.dataset.{name}", _LastingPandas)


def _drop_in_training_only() -> None:
    """Let NGCF drop messages in training only, as RecBole 1.2.1 does.

    RecBole 1.2.0 makes a dropout at each pass, and a new module is in training: its scores are drawn at random.
    """
    _compile_again("recbole.model.general_recommender.ngcf", _DropoutInTraining)


class _Rewriting(ast.NodeTransformer):
    """A change to a method's syntax tree.

    Attributes:
        changed: whether there was anything to change.
    """

    changed = False

    def _visited(self, node: Any) -> Any:
        self.generic_visit(node)
        return node


class _LastingPandas(_Rewriting):
    """``x.fillna(y, inplace=True)`` becomes ``x = x.fillna(y)``, and ``x.agg(len)`` becomes ``x.map(len)``."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "fillna"):
            return self._visited(node)
        if not isinstance(call.func.value, ast.Subscript) or "inplace" not in {key.arg for key in call.keywords}:
            return self._visited(node)
        self.changed = True
        target = copy.deepcopy(call.func.value)
        target.ctx = ast.Store()
        call.keywords = [key for key in call.keywords if key.arg != "inplace"]
        return ast.copy_location(ast.Assign([target], call), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        names = [argument.id for argument in node.args if isinstance(argument, ast.Name)]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "agg" and names == ["len"]:
            self.changed = True
            node.func.attr = "map"
        return self._visited(node)


class _DropoutInTraining(_Rewriting):
    """``nn.Dropout(p)(x)`` becomes ``nn.Dropout(p).train(self.training)(x)``."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        made = node.func
        if isinstance(made, ast.Call) and isinstance(made.func, ast.Attribute) and made.func.attr == "Dropout":
            self.changed = True
            node.func = ast.copy_location(ast.parse("made.train(self.training)", mode="eval").body, made)
            node.func.func.value = made  # type: ignore[attr-defined]
        return self._visited(node)


def _compile_again(name: str, rewriting: type[_Rewriting]) -> None:
    """Compile those methods of a module's classes that a rewriting changes, with RecBole's own line numbers."""
    module = importlib.import_module(name)
    classes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    for owner, method in ((node, part) for node in classes for part in node.body):
        change = rewriting()
        rewritten = change.visit(method)
        if change.changed and isinstance(method, ast.FunctionDef):
            tree = ast.fix_missing_locations(ast.Module([rewritten], type_ignores=[]))
            scope: dict[str, Any] = {}
            exec(compile(tree, module.__file__ or name, "exec"), module.__dict__, scope)
            setattr(getattr(module, owner.name), method.name, scope[method.name])


# ---------------------------------------------------------------------- what RecBole 1.2.1 computes differently


def _score_pairs() -> None:
    """Let DiffRec and LDiffRec score each user's own item, as RecBole 1.2.1 does, and not the whole batch's.

    Only evaluation among sampled items asks for it.
    """
    import torch
    from recbole.model.general_recommender.diffrec import DiffRec
    from recbole.model.general_recommender.ldiffrec import LDiffRec

    def predict(self: Any, interaction: Any) -> Any:
        items = interaction[self.ITEM_ID]
        return self.full_sort_predict(interaction)[torch.arange(len(items), device=items.device), items]

    DiffRec.predict = LDiffRec.predict = predict
