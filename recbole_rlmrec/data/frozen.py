"""The one split of a dataset: the file that freezes it, how it was made, and what asks for another.

Profiles are written from training interactions, so a dataset that has some must be split the same way in every
training, whatever the seed. The packed split ``NAME.split.json`` beside the dataset sees to that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from recbole_rlmrec.data.split import read_recipe
from recbole_rlmrec.errors import DataError, SettingError

#: What RecBole 1.2 takes where ``eval_args`` does not say it; the part of them that says how to split.
RECBOLES_SPLIT: Mapping[str, Any] = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user"}

#: What to add to a command that writes profiles again, where nothing records how it was called.
_CHOICES_AGAIN = "; give it the text columns, the writer and the encoder that it had before, if you chose any"

_PART_WORDS = {"valid": "validation", "test": "test"}


@dataclass(frozen=True)
class SplitRecipe:
    """How a split was made, in RecBole's terms.

    Attributes:
        split: ``{"RS": [8, 1, 1]}`` or ``{"LS": "valid_and_test"}``; empty if it was taken from a file.
        order: ``RO`` (at random) or ``TO`` (by time); likewise.
        group_by: ``user``, or None for all interactions together.
        seed: of the random order.
        without: parts that were added to training, ``valid`` and ``test``.
        source: name of the split file that it was taken from; empty if it was drawn.
        cold_items: share of the items, drawn by the seed, that only the test has; 0 for none.
        added: interactions that came later and were put to the parts at random, with the parts' shares.
    """

    split: Mapping[str, Any]
    order: str
    group_by: str | None
    seed: int
    without: tuple[str, ...] = ()
    source: str = ""
    cold_items: float = 0.0
    added: int = 0

    @classmethod
    def of(
        cls, eval_args: Mapping[str, Any], seed: int, without: Sequence[str] = (), cold_items: float = 0.0
    ) -> SplitRecipe:
        """Return the recipe that ``eval_args`` are."""
        given = {**RECBOLES_SPLIT, **{key: eval_args[key] for key in RECBOLES_SPLIT if key in eval_args}}
        return cls(**given, seed=seed, without=tuple(without), cold_items=cold_items)

    @classmethod
    def copied(cls, source: str, seed: int, without: Sequence[str] = (), cold_items: float = 0.0) -> SplitRecipe:
        """Return the recipe of a split that is a file's."""
        return cls({}, "", None, seed, without=tuple(without), source=source, cold_items=cold_items)

    @classmethod
    def of_file(cls, path: Path) -> SplitRecipe | None:
        """Return the recipe that a packed split records; None if it records none.

        Raises:
            DataError: the file is no packed split, or what it records is no recipe.
        """
        made = read_recipe(path)
        if made is None:
            return None
        try:
            recipe = cls(**{**made, "without": tuple(made.get("without", ()))})
            str(recipe)  # whatever a message will read is there
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, StopIteration) as error:
            raise DataError(
                f"'{path}' says under 'made' how the split was made, but not as this version does ({made!r:.200}). "
                "Remove that entry, or fetch a whole copy."
            ) from error
        return recipe

    def record(self) -> dict[str, Any]:
        """Return what the packed file holds of it."""
        recorded = {**asdict(self), "without": list(self.without)}
        # As splits were recorded before there was the choice.
        return {name: value for name, value in recorded.items() if value or name not in ("cold_items", "added")}

    def agrees_with(self, asked: Mapping[str, Any]) -> bool:
        """Return whether ``eval_args`` that were given ask for this split; the seed does not matter.

        Args:
            asked: those of ``split``, ``order`` and ``group_by`` that were given.
        """
        if self.source:  # how that file was made is not known, and RecBole's default is taken for no wish
            return SplitRecipe.of(RECBOLES_SPLIT, self.seed, self.without, self.cold_items).agrees_with(asked)
        wanted = {**RECBOLES_SPLIT, **asked} if "split" in asked else dict(asked)
        if "LS" in self.split and wanted.get("split") == self.split:
            wanted.pop("group_by", None)  # RecBole leaves one out by user, whatever this says
        found = {"split": self.split, "order": self.order, "group_by": self.group_by}
        is_whole = not self.without and not self.cold_items
        return is_whole and all(_plain(key, found[key]) == _plain(key, value) for key, value in wanted.items())

    @property
    def _is_by_chance(self) -> bool:
        return self.order == "RO" or bool(self.cold_items)

    @property
    def _is_by_user(self) -> bool:
        return _plain("group_by", self.group_by) is not None

    def options(self) -> list[str]:
        """Return the options of ``recbole-rlmrec split`` that make such a split."""
        mode = next(iter(self.split), None)
        seed = [f"--seed={self.seed}"] if self._is_by_chance else []
        cold = [f"--cold-items={self.cold_items:g}"] if self.cold_items else []
        if self.source:
            options = [f"--split_file={self.source}", *(seed if cold else [])]
        elif mode == "RS" and (self.order, self._is_by_user) in (("RO", True), ("TO", False)):
            options = ["--by-time"] if self.order == "TO" else []
            options += [f"--ratios={_ratios(self.split['RS'])}", *seed]
        elif dict(self.split) == {"LS": "valid_and_test"}:
            options = ["--leave-one-out", *seed]
        else:
            text = json.dumps({"split": self.split, "order": self.order, "group_by": self.group_by})
            options = [f"--eval_args={text}", *seed]
        return [*options, *cold, *(f"--no-{name}" for name in self.without)]

    def __str__(self) -> str:
        by_time = self.order == "TO"
        if self.source:
            text = f"as {self.source} has it"
        elif "RS" in self.split:
            text = f"{'by time' if by_time else 'random'} {_ratios(self.split['RS'])}"
            if self._is_by_user == by_time:  # RecBole's random split is by user, a split by time is over all
                text += " within each user" if by_time else " over all interactions"
        else:
            ((mode, value),) = self.split.items()
            text = f"leave-one-out {'by time' if by_time else 'at random'}"
            if (mode, value) != ("LS", "valid_and_test"):
                text = f"{mode} {value}, {self.order}"
        if self.cold_items:
            text += f", {self.cold_items:.4g} of the items in the test only"
        if self._is_by_chance:
            text += f", seed {self.seed}"
        text += "".join(f", no {_PART_WORDS[name]}" for name in self.without)
        return text + (f", {self.added:,} interactions added since" if self.added else "")


def _plain(key: str, value: Any) -> Any:
    """Return a part of ``eval_args`` so that equal splits are equal."""
    if key == "group_by":
        return None if value is None or str(value).lower() == "none" else str(value)
    if key == "split" and isinstance(value, Mapping) and "RS" in value:
        try:
            return {**value, "RS": _ratios(value["RS"])}
        except (TypeError, ValueError, ArithmeticError):  # it is refused where it is used
            return value
    return value


def _ratios(shares: Sequence[float]) -> str:
    """Write shares as small whole numbers where they are such.

    >>> _ratios([0.8, 0.1, 0.1]), _ratios([6, 2, 2]), _ratios([8, 1, 1e-9])
    ('8:1:1', '3:1:1', '8:1:1e-09')
    """
    total = sum(shares)
    parts = [Fraction(share / total).limit_denominator(10_000) for share in shares]
    scale = math.lcm(*(part.denominator for part in parts))
    whole = [int(part * scale) for part in parts]
    if any(share and not number for share, number in zip(shares, whole)):
        return ":".join(f"{share:g}" for share in shares)
    common = math.gcd(*whole) or 1
    return ":".join(str(number // common) for number in whole)


def frozen_name(dataset: str) -> str:
    """Return the name of the file that holds a dataset's frozen split."""
    return f"{dataset}.split.json"


def frozen_path(config: Any) -> Path | None:
    """Return the file of the frozen split of a configuration's dataset; None without one.

    ``split_file: ~``, where the dataset's property file names one, asks for RecBole's split in place of a file that
    does not say how it was made, as the embedded one; what was frozen by request is not switched off.
    """
    found: Path | None = config.find_data_file(frozen_name(config["dataset"]))
    is_off = config["split_file"] is None and config.internal_config_dict.get("split_file") is not None
    return None if found is not None and is_off and SplitRecipe.of_file(found) is None else found


def write_again(config: Any, metadata: Mapping[str, Any], without: Sequence[str] = ()) -> str:
    """Return, for a message, the command that writes profiles of another split again.

    Args:
        config: of the run.
        metadata: what describes the embeddings; ``build-semantics`` records there how it was called.
        without: settings to leave out.
    """
    options = metadata.get("options") or []
    command = config.command("build-semantics", *options, "--overwrite", without=without)
    return f"`{command}`{'' if options else _CHOICES_AGAIN}"


def encode_again(config: Any, metadata: Mapping[str, Any], model: str) -> str:
    """Return, for a message, the command that encodes profiles with another model; see :func:`write_again`.

    Args:
        config: of the run.
        metadata: what describes the embeddings.
        model: a word that stands for the model.
    """
    options = [each for each in metadata.get("options") or () if not each.startswith("--encoder-model=")]
    return write_again(config, {"options": [*options, f"--encoder-model={model}"] if options else []})


def other_split(where: object, made: str, recorded: str, training: str) -> str:
    """Say, for a message, that something was made from another training split than the one in use.

    Args:
        where: the file that records it.
        made: what was made and how, such as "the profiles were written from".
        recorded: hash of the split that it was made from.
        training: hash of the split in use.
    """
    return (
        f"{where}: {made} another training split ({recorded[:12]}...) than this run's ({training[:12]}...); they may "
        "hold validation or test interactions."
    )


def described(path: Path, recipe: SplitRecipe | None) -> str:
    """Return a split file's name, with how it was made where it says so."""
    return path.name if recipe is None else f"{path.name} ({recipe})"


def other_wish(config: Any, path: Path, recipe: SplitRecipe | None) -> str:
    """Return what the user's ``eval_args`` say of another split than a file's; empty if they do not."""
    asked = config.asked_split
    known = recipe or SplitRecipe.copied(path.name, 0)
    if not asked or known.agrees_with(asked):
        return ""
    return f"eval_args ({', '.join(f'{key}: {value}' for key, value in asked.items())})"


def check_asked(config: Any, path: Path, recipe: SplitRecipe | None) -> None:
    """Refuse ``eval_args`` of the user's that ask for another split than the frozen one.

    Raises:
        SettingError: they do.
    """
    wish = other_wish(config, path, recipe)
    if not wish:
        return
    raise SettingError(
        f"{wish} asks for another split than the frozen one, {described(path, recipe)}, which all trainings of "
        f"'{config['dataset']}' use so that they compare and profiles stay true. Leave split, order and group_by out "
        f"of eval_args, or make and freeze that split with `{config.command('split', '--overwrite')}`."
    )
