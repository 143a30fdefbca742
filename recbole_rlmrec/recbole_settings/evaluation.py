"""What is evaluated: metrics, ranks, the metric that chooses the best epoch, and how; checked before data is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from recbole.evaluator import metric_types
from recbole.evaluator.register import metric_information, metrics_dict
from recbole.utils import EvaluatorType

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.settings import given

#: RecBole's metrics by their names in small letters.
_NAMES: dict[str, str] = {name: metric.__name__ for name, metric in metrics_dict.items()}
#: What RecBole collects for metrics that look at the first k of a ranking.
_RANKED = frozenset({"rec.items", "rec.topk"})


def has_rank(metric: str) -> bool:
    """Return whether a metric of RecBole's is computed at ranks, as ``recall@20``.

    >>> has_rank("NDCG"), has_rank("GAUC"), has_rank("LogLoss")
    (True, False, False)
    """
    return not _RANKED.isdisjoint(metric_information[metric.lower()])


def ranks_of(topk: Any) -> list[int]:
    """Return ``topk`` as a list; it may be one number."""
    return list(topk) if isinstance(topk, (list, tuple)) else [topk]


def metrics_of(metrics: Any) -> list[str]:
    """Return ``metrics`` as a list; it may be one name."""
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def fitting_valid_metric(settings: Mapping[str, Any], external: Mapping[str, Any]) -> str | None:
    """Return the ``valid_metric`` that goes with ``topk`` where the user gave that alone: the same at the largest rank.

    Args:
        settings: all of a run, each one that RecBole can use.
        external: those that the user gave.

    Returns:
        The metric; None where the one that is set stays.
    """
    name, at, k = str(settings["valid_metric"]).partition("@")
    ranks = ranks_of(settings["topk"])
    if "topk" not in external or "valid_metric" in external or not at or k in map(str, ranks):
        return None
    return f"{name}@{max(ranks)}"


def check_evaluation(settings: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise unless the metrics exist, are of one kind, fit ``eval_args``, and one of them is the ``valid_metric``.

    Args:
        settings: all of a run, each one that RecBole can use.
        origins: where they come from, for messages.

    Raises:
        SettingError: saying which metrics there are, or would fit.
    """
    metrics = metrics_of(settings["metrics"])
    shown = given("metrics", metrics, origins.get("metrics", ""))
    for metric in metrics:
        if metric.lower() not in _NAMES:
            near = difflib.get_close_matches(metric.lower(), _NAMES, n=1)
            advice = f" Did you mean '{_NAMES[near[0]]}'?" if near else ""
            raise SettingError(f"{shown}: there is no metric '{metric}'.{advice} RecBole's are {_listed(None)}.")
    kinds = {metric_types[metric.lower()] for metric in metrics}
    if len(kinds) > 1:
        raise SettingError(
            f"{shown}: metrics of rankings ({_listed(EvaluatorType.RANKING)}) and of single scores "
            f"({_listed(EvaluatorType.VALUE)}) cannot be computed in one run. Choose those of one kind."
        )
    _check_mode(settings, origins, is_ranking=kinds == {EvaluatorType.RANKING})
    _check_valid_metric(settings, metrics, origins)


def _check_mode(settings: Mapping[str, Any], origins: Mapping[str, str], *, is_ranking: bool) -> None:
    mode = settings["eval_args"].get("mode", "full")
    modes = set(mode.values()) if isinstance(mode, Mapping) else {mode}
    shown = given("eval_args", {"mode": mode}, origins.get("eval_args", ""))
    if is_ranking and "labeled" in modes:
        raise SettingError(
            f"{shown}: labels are compared by metrics of single scores ({_listed(EvaluatorType.VALUE)}), but metrics="
            f"{settings['metrics']} are of rankings. Set the mode to full, or choose other metrics."
        )
    if not is_ranking and "full" in modes:
        raise SettingError(
            f"{shown}: the mode full ranks all items, but metrics={settings['metrics']} are of single scores. Set the "
            f"mode to labeled (or uniN), or choose metrics of rankings: {_listed(EvaluatorType.RANKING)}."
        )


def _check_valid_metric(settings: Mapping[str, Any], metrics: list[str], origins: Mapping[str, str]) -> None:
    valid_metric, ranks = settings["valid_metric"], ranks_of(settings["topk"])
    name, at, k = valid_metric.lower().partition("@")
    computed = [f"{each}@{max(ranks)}" if has_rank(each) else each for each in metrics]
    is_there = name in [metric.lower() for metric in metrics]
    if is_there and has_rank(name) and at and k in map(str, ranks):
        return
    if is_there and not has_rank(name) and not at:
        return
    advice = f"Choose one of them, such as {computed[0]}, or add it."
    if is_there and has_rank(name) and not at:
        advice = f"Say at which rank: {_NAMES[name]}@{max(ranks)}."
    elif is_there and not has_rank(name):
        advice = f"{_NAMES[name]} looks at no rank: leave @{k} out."
    raise SettingError(
        f"{given('valid_metric', valid_metric, origins.get('valid_metric', 'RecBole'))} is not computed; the metrics "
        f"are {metrics} at {ranks}. {advice}"
    )


def _listed(kind: EvaluatorType | None) -> str:
    return ", ".join(sorted(_NAMES[name] for name in _NAMES if kind in (None, metric_types[name])))
