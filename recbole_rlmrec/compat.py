"""The one place that adapts RecBole 1.2 to today's libraries. Each repair names the upstream issue.

RecBole 1.2.0 is what this package asks for, because 1.2.1 demands a Ray that no Python after 3.11 has; both work.
Libraries are imported where they are repaired, so that the version of RecBole can be asked for before anything else.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import io
import json
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from recbole_rlmrec.errors import SettingError

#: What the repairs were written for.
RECBOLE = "1.2"


@functools.cache
def apply() -> None:
    """Apply every repair; calling it again changes nothing.

    Raises:
        SettingError: RecBole is of another version than 1.2.x.
    """
    require_recbole()
    _silence_future_warnings()
    _restore_dok_update()
    _name_numpy_types()
    _import_quick_start_without_ray()
    _search_exhaustively()
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
    """Let ``recbole.quick_start`` be imported, and its objective function be called, without Ray (RecBole#1518, #1741).

    It imports Ray for one line: the objective function reports the test's metrics, also where no Ray runs, and in a
    form that Ray has given up.
    """
    name = "recbole.quick_start.quick_start"
    if name not in sys.modules:
        there, absent = sys.modules.get("ray"), types.ModuleType("ray")
        absent.tune = None  # type: ignore[attr-defined]
        sys.modules["ray"] = absent
        try:
            importlib.import_module(name)
        finally:
            del sys.modules["ray"]
            if there is not None:
                sys.modules["ray"] = there
    sys.modules[name].tune = types.SimpleNamespace(report=_report_to_ray)  # type: ignore[attr-defined]


def _report_to_ray(**metrics: float) -> None:
    """Report metrics of a trial where Ray is loaded, in the form that it takes."""
    tune = sys.modules.get("ray.tune")
    if tune is None or tune.__spec__ is None or tune.__spec__.loader is None:
        return
    if "metrics" in inspect.signature(tune.report).parameters:
        tune.report(metrics)
    else:
        tune.report(**metrics)


def stand_in_for_ray() -> None:
    """Let RecBole's ``run_hyper.py`` import Ray where it is not installed; what is called of it raises ImportError.

    The stand-in has no loader, which shows others that it is none.
    """
    if importlib.util.find_spec("ray") is not None:
        return
    names = ("ray", "ray.tune", "ray.tune.schedulers")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        module.__getattr__ = _of_absent_ray  # type: ignore[method-assign]
        sys.modules[name] = module
    for name in names[1:]:
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, sys.modules[name])


def _of_absent_ray(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError(
            f"'{name}' needs the package 'ray', which is not installed: pip install 'recbole-rlmrec[ray]'"
        )

    return refuse


def _search_exhaustively() -> None:
    """Give RecBole's exhaustive search the random numbers that hyperopt asks for since 0.2.7."""
    _compile_again("recbole.trainer.hyper_tuning", _Generator)


class TableReader(Protocol):
    """Reads RecBole's tables in its place."""

    def first_line(self, path: str) -> str:
        """Return a table's header, without the line's end."""

    def rows(self, path: str, *, usecols: list[str], dtype: dict[str, type], **how: Any) -> Any:
        """Return what ``pandas.read_csv`` would of these arguments: a data frame of the columns ``usecols``."""


@contextmanager
def tables_read_by(reader: TableReader) -> Iterator[None]:
    """Let all of RecBole's datasets read their tables by a reader meanwhile.

    RecBole opens a table for its header and again for its rows. pandas reads the second as CSV: a quotation mark that
    is never closed swallows the rows after it, and a row with a field too many moves every column.
    """
    import recbole.data.dataset.dataset as module

    pandas, load = module.pd, module.Dataset._load_feat

    def load_with_reader(self: Any, filepath: str, source: Any) -> Any:
        module.pd = types.SimpleNamespace(**{**vars(pandas), "read_csv": reader.rows})
        module.open = lambda path, *_, **__: io.StringIO(reader.first_line(path) + "\n")
        try:
            return load(self, filepath, source)
        finally:
            module.pd = pandas
            del module.open

    module.Dataset._load_feat = load_with_reader
    try:
        yield
    finally:
        module.Dataset._load_feat = load


def dataset_of(loader: Any) -> Any:
    """Return the dataset that a loader of RecBole's gives batches of.

    Its public ``dataset`` is torch's list of row numbers while any loader begins an epoch.
    """
    return loader._dataset


def visible_gpus() -> str | None:
    """Return CUDA_VISIBLE_DEVICES as whoever started the program set it; None if nobody did.

    RecBole's ``Config`` sets it to ``gpu_id``, whatever it was.
    """
    now = os.environ.get(_VISIBLE)
    written, given = json.loads(os.environ.get(_NOTE, "[null, null]"))
    return given if now is not None and now == written else now


def note_visible_gpus(given: str | None) -> None:
    """Note that CUDA_VISIBLE_DEVICES is RecBole's now, also for processes that are started from here.

    Args:
        given: what it was.
    """
    os.environ[_NOTE] = json.dumps([os.environ.get(_VISIBLE), given])


_VISIBLE = "CUDA_VISIBLE_DEVICES"
_NOTE = "RECBOLE_RLMREC_VISIBLE_DEVICES"


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


class _Generator(_Rewriting):
    """``np.random.RandomState(seed)`` becomes ``np.random.default_rng(seed)``."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if node.attr == "RandomState":
            self.changed = True
            node.attr = "default_rng"
        return self._visited(node)


class _OldestProtocol(_Rewriting):
    """``torch.save(state, path, pickle_protocol=4)`` becomes ``torch.save(state, path)``."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        others = [keyword for keyword in node.keywords if keyword.arg != "pickle_protocol"]
        self.changed |= len(others) < len(node.keywords)
        node.keywords = others
        return self._visited(node)


def _compile_again(name: str, rewriting: type[_Rewriting]) -> None:
    """Compile the functions and methods of a module that a rewriting changes, with RecBole's own line numbers."""
    module = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(module))
    owners: list[tuple[Any, ast.Module | ast.ClassDef]] = [(module, tree)]
    owners += [(getattr(module, node.name), node) for node in tree.body if isinstance(node, ast.ClassDef)]
    for owner, function in ((owner, part) for owner, node in owners for part in node.body):
        if not isinstance(function, ast.FunctionDef):
            continue
        change = rewriting()
        rewritten = change.visit(function)
        if change.changed:
            compiled = ast.fix_missing_locations(ast.Module([rewritten], type_ignores=[]))
            scope: dict[str, Any] = {}
            exec(compile(compiled, module.__file__ or name, "exec"), module.__dict__, scope)
            setattr(owner, function.name, scope[function.name])


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


# ---------------------------------------------------------------------- where RecBole is entered


def reroute(function: Any, route: Callable[..., Any]) -> None:
    """Let every call of a function of RecBole's go to ``route(function as it was, *arguments)``.

    The function itself is changed, not a name in a module: a script may have imported it before or after, from
    whichever module.

    Args:
        function: of a module; a constructor is rerouted by :func:`reroute_constructor`.
        route: takes the function as it was, and the arguments.
    """
    theirs = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    theirs.__kwdefaults__ = function.__kwdefaults__
    function.__code__ = _rerouted.__code__
    function.__defaults__ = None
    function.__kwdefaults__ = {"_route": functools.partial(route, theirs)}
    function.__wrapped__ = theirs  # for help() and inspect.signature


def _rerouted(*arguments: Any, _route: Callable[..., Any], **named: Any) -> Any:
    return _route(*arguments, **named)


def reroute_method(owner: type, name: str, route: Callable[..., Any]) -> None:
    """Let a method of a class go to ``route(method as it was, self, *arguments)``, also in what extends the class."""
    theirs = getattr(owner, name)

    @functools.wraps(theirs)
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return route(theirs, self, *arguments, **named)

    setattr(owner, name, method)


def write_readable_checkpoints() -> None:
    """Let RecBole's trainers write checkpoints that :func:`recboles_checkpoint` can read.

    torch reads pickles of protocol 4, in which RecBole writes, by running whatever they say, or not at all.
    """
    _compile_again("recbole.trainer.trainer", _OldestProtocol)


@contextmanager
def recboles_checkpoint(path: Any, *also: type) -> Iterator[None]:
    """Let ``torch.load`` read a checkpoint that RecBole wrote; since 2.6 it reads tensors and plain values only.

    RecBole's hold the configuration, which names a model class and enumerations, and NumPy's numbers. Nothing else is
    admitted, so torch refuses those of the models that keep sparse matrices (ItemKNN, EASE, ...). Before torch 2.6
    there is nothing to let.

    Args:
        path: the checkpoint; one that is missing or damaged is left to ``torch.load``.
        also: classes to admit, such as that of a model of the script's own.
    """
    import numpy as np
    import torch

    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if find is None:
        yield
        return
    try:
        names = find(path)
    except Exception:  # whatever its zip and pickle readers raise
        names = []
    found = [each for each in map(_found, names) if each in also or _is_of_checkpoints(each)]
    # A pickle names NumPy's dtype and makes one of these of it.
    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    with torch.serialization.safe_globals([*found, *dtypes]):
        yield


def _found(name: str) -> Any:
    """Return what a dotted name stands for among the modules that are loaded, or of RecBole's models; else None."""
    module, _, attribute = name.rpartition(".")
    if module.startswith("recbole.model.") and importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
    return getattr(sys.modules.get(module), attribute, None)


def _is_of_checkpoints(found: Any) -> bool:
    """Return whether RecBole's checkpoints hold such things, and nothing is run where one is made."""
    import numpy as np
    import yaml
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.utils import Enum

    if found in (np.float64(0).__reduce__()[0], yaml.FullLoader, Config):
        return True
    return isinstance(found, type) and issubclass(found, (AbstractRecommender, Enum, np.dtype))
