"""Columns that settings name: whether ``load_col`` loads them and the files have them, with the type that is needed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.settings import given

#: Kinds of files with columns, in the words of ``load_col``.
SOURCES = ("inter", "user", "item")

#: Column -> its type, of each kind of files; None of a file that is not there.
Headers = Mapping[str, Mapping[str, str] | None]


def check_columns(
    settings: Mapping[str, Any],
    external: Mapping[str, Any],
    origins: Mapping[str, str],
    headers: Headers,
    *,
    is_split: bool,
) -> None:
    """Raise unless columns that settings name are loaded, and have the type that is needed.

    Args:
        settings: all of a run, each one that RecBole can use.
        external: those that the user gave.
        origins: where they come from, for messages.
        headers: see :func:`recbole_rlmrec.data.table.read_headers`.
        is_split: whether a file fixes the split, so that ``eval_args`` do not make one.

    Raises:
        SettingError: ``load_col`` leaves a column out, or no file has it, or it is of another type.
    """
    for source, columns in (external.get("load_col") or {}).items():
        header = headers.get(source)
        if header is None or not isinstance(columns, (list, tuple)):
            continue
        for column in columns:
            if column not in header:
                shown = given("load_col", external["load_col"], origins.get("load_col", ""))
                raise SettingError(f"{shown}: the .{source} file has no column '{column}'. {_columns(column, header)}")
    for name, column, sources, needed in _named(settings, external, is_split=is_split):
        shown = given(name, settings[name], origins.get(name, ""))
        known = {source: headers[source] or {} for source in sources if headers.get(source)}
        there = [source for source, header in known.items() if column in header]
        if not [
            source for source in sources if _is_loaded(settings, source, column) and (source in there or not known)
        ]:
            if known and not there:
                header = {name: kind for each in known.values() for name, kind in each.items()}
                raise SettingError(f"{shown}: no file has the column '{column}'. {_columns(column, header)}")
            source = there[0] if there else sources[0]
            raise SettingError(
                f"{shown} needs the column '{column}', which is not loaded: {_remedy(settings, source, column)}"
            )
        kinds = [known[source][column] for source in there]
        wrong = [kind for kind in kinds if needed and not kind.startswith(needed)]
        if wrong:
            how = "intervals, such as '[3,inf)'" if wrong[0].startswith("float") else "a list of values"
            raise SettingError(f"{shown}: the column '{column}' is of the type {wrong[0]}; expected {how}.")


def _named(
    settings: Mapping[str, Any], external: Mapping[str, Any], *, is_split: bool
) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield setting, column, the kinds of files that may have it, and the beginning of the type that it must have."""
    names = [name for name in ("load_col", "unload_col") if "inter" in (external.get(name) or {})]
    for field in ("USER_ID_FIELD", "ITEM_ID_FIELD"):
        if names and field not in external and settings.get(field) is not None:
            yield names[0], settings[field], ("inter",), ""
    if settings["eval_args"].get("order") == "TO" and not is_split and "eval_args" in external:
        yield "eval_args", settings["TIME_FIELD"], ("inter",), ""
    # Files of additional_feat_suffix have columns too.
    has_more_files = bool(settings.get("additional_feat_suffix"))
    for column, wanted in () if has_more_files else (settings.get("val_interval") or {}).items():
        yield "val_interval", column, SOURCES, "float" if isinstance(wanted, str) else "token"
    for column in settings.get("threshold") or {}:
        yield "threshold", column, ("inter",), ""
    for column in () if has_more_files else settings.get("normalize_field") or ():
        yield "normalize_field", column, SOURCES, ""


def _is_loaded(settings: Mapping[str, Any], source: str, column: str) -> bool:
    columns, without = (settings.get(name) for name in ("load_col", "unload_col"))
    if column in ((without or {}).get(source) or ()):
        return False
    if columns is None or columns.get(source, ()) in ("*", None):
        return True
    return column in columns.get(source, ())


def _remedy(settings: Mapping[str, Any], source: str, column: str) -> str:
    if column in ((settings.get("unload_col") or {}).get(source) or ()):
        return f"take {column} out of unload_col."
    columns = dict(settings["load_col"] or {})
    columns[source] = [*(columns.get(source) or ()), column]
    listed = ", ".join(f"{key}: [{', '.join(names)}]" for key, names in columns.items() if not isinstance(names, str))
    return f'load_col must name {column}, e.g. --load_col="{{{listed}}}".'


def _columns(column: str, header: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(column, header, n=1)
    advice = f"Did you mean '{near[0]}'? " if near else ""
    return f"{advice}The columns are {', '.join(header)}."
