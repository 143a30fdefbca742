"""Every setting of our own, with its kind, range and meaning; the one place they are checked and documented from."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Container, Literal, Mapping, Optional, TypeVar, Union

from recbole_rlmrec.errors import ContractError, SettingError

_SettingsT = TypeVar("_SettingsT", bound="Settings")

#: Weight of a term: a number, or ``auto`` for one that a bound on the term's gradient decides at each step.
Weight = Union[float, Literal["auto"]]


def number_of(weight: Weight) -> float:
    """Return what a term is multiplied by; with ``auto`` 1, the largest weight that its bound leaves it."""
    return 1.0 if weight == "auto" else weight


def bound_of(weight: Weight, share: float) -> Optional[float]:
    """Return the bound on a term's gradient, ``share`` with the weight ``auto``; a fixed weight has none."""
    return share if weight == "auto" else None


@dataclass(frozen=True)
class Range:
    """An interval of numbers; ``whole`` admits integers only."""

    low: float
    high: float = float("inf")
    includes_low: bool = True
    includes_high: bool = True
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.whole and not isinstance(value, int):
            return False
        above = value >= self.low if self.includes_low else value > self.low
        below = value <= self.high if self.includes_high and self.high != float("inf") else value < self.high
        return above and below

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.high == float("inf"):
            return f"{kind} {'at least' if self.includes_low else 'above'} {self.low:g}"
        left, right = "[" if self.includes_low else "(", "]" if self.includes_high else ")"
        return f"{kind} in {left}{self.low:g}, {self.high:g}{right}"


@dataclass(frozen=True)
class Choice:
    """A closed set of words."""

    words: tuple[str, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class AutoOr:
    """The word ``auto``, or a number of a range."""

    range: Range

    def __contains__(self, value: object) -> bool:
        return value == "auto" or value in self.range

    def __str__(self) -> str:
        return f"auto or {self.range}"


@dataclass(frozen=True)
class OfType:
    """Any value of a type; ``None`` where ``optional``."""

    type: type
    label: str
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, self.type) or (self.optional and value is None)

    def __str__(self) -> str:
        return f"{self.label} or nothing (~)" if self.optional else self.label


Allowed = Union[Range, AutoOr, Choice, OfType]


@dataclass(frozen=True)
class Setting:
    """What a setting may be, an example for error messages, and what it does."""

    allowed: Allowed
    example: str
    meaning: str


_POSITIVE = Range(0, includes_low=False)
_WEIGHT = Range(0)
_AUTO_WEIGHT = AutoOr(_WEIGHT)
_COUNT = Range(1, whole=True)
_FLAG = OfType(bool, "True or False")
_TEXT = OfType(str, "text", optional=True)
_NAMES = OfType(list, "a list of names", optional=True)

MODEL_SETTINGS: dict[str, Setting] = {
    # RLMRec
    "alignment_weight": Setting(
        _AUTO_WEIGHT,
        "auto",
        "Con: weight of the alignment term, or auto: as large as alignment_share allows; 0 is the backbone itself",
    ),
    "alignment_share": Setting(
        Range(0, 1),
        "0.1",
        "Con, Gen: with an auto weight, how hard the term may pull at most, in gradients of the backbone's own terms",
    ),
    "alignment_temperature": Setting(_POSITIVE, "0.2", "Con: temperature of the alignment's InfoNCE"),
    "alignment_negatives": Setting(
        Choice(("all", "batch")), "all", "Con: a user's negatives are all users, or the batch's unique nodes"
    ),
    "reconstruction_weight": Setting(
        _AUTO_WEIGHT,
        "auto",
        "Gen: weight of the reconstruction term, or auto: as large as alignment_share allows; 0 is the backbone itself",
    ),
    "reconstruction_temperature": Setting(_POSITIVE, "0.2", "Gen: temperature of the reconstruction's InfoNCE"),
    "mask_ratio": Setting(Range(0, 1, includes_low=False), "0.1", "Gen: share of the nodes masked at each step"),
    "semantic_storage": Setting(
        Choice(("memory", "memory_map")),
        "memory",
        "the table of semantic embeddings is held in memory, or read from its file row by row",
    ),
    # Backbones
    "embedding_size": Setting(_COUNT, "64", "width d of the ego embeddings"),
    "n_layers": Setting(_COUNT, "2", "propagation layers"),
    "reg_weight": Setting(_WEIGHT, "1e-5", "weight of the L2 term"),
    "require_pow": Setting(_FLAG, "False", "RecBole: square the norms of the batch's L2 term"),
    "layer_combination": Setting(
        Choice(("mean", "sum", "concat")), "mean", "how layers become one representation (RLMRec: sum)"
    ),
    "include_ego_layer": Setting(_FLAG, "True", "whether layer 0 takes part in the combination"),
    "edge_keep_rate": Setting(
        Range(0, 1, includes_low=False),
        "0.8",
        "share of directed edges kept at each training step, on the main path; in SGL, in `independent` views instead",
    ),
    "l2_scope": Setting(
        Choice(("batch", "all")), "batch", "L2 over the batch's rows, or over every parameter (RLMRec)"
    ),
    "loss_reduction": Setting(
        Choice(("mean", "sum")), "mean", "losses averaged over the batch, or summed (RecBole's SGL)"
    ),
    "ssl_weight": Setting(
        _AUTO_WEIGHT,
        "auto",
        "SGL, SimGCL, XSimGCL, DCCF: weight of the contrast between views, in all but DCCF also auto: as large as "
        "ssl_share allows; AutoCF: of users with users and items with items",
    ),
    "ssl_share": Setting(
        Range(0, 1),
        "0.1",
        "SGL, SimGCL, XSimGCL: with an auto ssl_weight, how hard the contrast may pull at most, in gradients of the "
        "other terms",
    ),
    "ssl_tau": Setting(_POSITIVE, "0.2", "SGL, SimGCL, XSimGCL, DCCF: temperature of that contrast"),
    "ssl_negatives": Setting(
        Choice(("all", "batch")),
        "all",
        "SGL, SimGCL, XSimGCL, DCCF: negatives are the whole table, or the batch's unique nodes",
    ),
    "ssl_negative_items": Setting(
        _FLAG, "False", "SGL, SimGCL, XSimGCL, DCCF: negative items are anchors too (RLMRec's SGL)"
    ),
    "padding_negatives": Setting(
        _FLAG, "False", "SGL, SimGCL, XSimGCL, DCCF: [PAD] counts as a negative (RecBole's SGL)"
    ),
    "view_edge_drop": Setting(
        Choice(("recbole", "independent")),
        "recbole",
        "SGL: views drawn once an epoch by `type`, `drop_ratio`, or at each step by `edge_keep_rate` (RLMRec)",
    ),
    "drop_ratio": Setting(Range(0, 1, includes_high=False), "0.1", "SGL: share of edges or nodes dropped in a view"),
    "type": Setting(Choice(("ED", "ND", "RW")), "ED", "SGL: edge drop, node drop, or an edge drop per layer"),
    "eps": Setting(_WEIGHT, "0.1", "SimGCL, XSimGCL: length of the noise added after each layer"),
    "self_loops": Setting(_FLAG, "True", "GCCF: each node is its own neighbour in the graph"),
    "unused_layer_weights": Setting(
        _FLAG, "False", "GCCF: carry the official code's layer weights, which enter the L2 term and nothing else"
    ),
    "intent_num": Setting(_COUNT, "128", "DCCF: latent intents of each side"),
    "item_contrast_divisor": Setting(
        Choice(("items", "users")),
        "items",
        "DCCF: what the items' contrast is averaged over; the official code divides it by the batch's unique users",
    ),
    "n_decoder_layers": Setting(_COUNT, "1", "AutoCF: graph-transformer layers of the decoder"),
    "head_num": Setting(_COUNT, "4", "AutoCF: attention heads of a decoder layer; a divisor of embedding_size"),
    "seed_num": Setting(_COUNT, "100", "AutoCF: centres whose surroundings are masked"),
    "mask_depth": Setting(
        _COUNT, "2", "AutoCF: edges are masked that touch a node less than this many steps from a centre"
    ),
    "fix_steps": Setting(_COUNT, "10", "AutoCF: training steps between two draws of centres and graphs"),
    "node_keep_rate": Setting(
        Range(0, 1), "0.2", "AutoCF: share of nodes drawn beside the masked ones for the decoder's random pairs"
    ),
    "decoder_rows": Setting(
        Choice(("exact", "float32")),
        "exact",
        "AutoCF: rows of the decoder's graph as they are, or as the official code decodes them: 5 % are the row above",
    ),
    # Baselines
    "kar_shared_experts": Setting(_COUNT, "2", "KAR: experts that users and items share"),
    "kar_side_experts": Setting(_COUNT, "2", "KAR: further experts of each side"),
    "temperature": Setting(_POSITIVE, "0.15", "AlphaRec: temperature of the InfoNCE"),
    "negatives_per_positive": Setting(_COUNT, "256", "AlphaRec: unused items drawn for each positive at each step"),
}

RUN_SETTINGS: dict[str, Setting] = {
    # Data
    "split_file": Setting(_TEXT, "my-split.tsv", "a file beside the dataset that says train, valid or test by row"),
    "split_field": Setting(_TEXT, "split", "name of a column of the .inter file that says train, valid or test"),
    "cold_nodes": Setting(
        Choice(("warn", "error")), "warn", "what to do about users or items without a training interaction"
    ),
    # Text
    "item_title_field": Setting(_TEXT, "title", "column of the .item file with the items' titles"),
    "item_description_field": Setting(_TEXT, "description", "column of the .item file with prose about the items"),
    "item_attribute_fields": Setting(_NAMES, "[genres]", "columns of the .item file told in profiles"),
    "user_attribute_fields": Setting(_NAMES, "[age]", "columns of the .user file told in profiles"),
    "review_field": Setting(_TEXT, "review", "column of the .inter file with the users' words"),
    "text_domain": Setting(
        Choice(("general", "books", "businesses", "games", "movies")), "books", "what the items are, for the prompts"
    ),
    "leakage": Setting(
        Choice(("warn", "error")), "warn", "what to do about profiles written from another training split"
    ),
    # Run
    "eval_protocol": Setting(
        Choice(("recbole", "paper")), "recbole", "whose evaluation: RecBole's own, or that of the RLMRec paper"
    ),
    "defaults": Setting(
        Choice(("recommended", "published")),
        "recommended",
        "defaults for data of your own, or the numbers of RecBole and of the original papers",
    ),
    "tuned": Setting(_FLAG, "True", "load properties/tuned/<dataset>/<Class>.yaml where there is one"),
    "result_file": Setting(_TEXT, "result.json", "where to write the run's settings and results as JSON"),
    "resume_from": Setting(_TEXT, "saved/X.pth", "checkpoint whose training goes on"),
    "seed": Setting(Range(0, whole=True), "2020", "seed of every random number"),
    "learning_rate": Setting(_POSITIVE, "0.001", "step size of the optimiser"),
    "train_batch_size": Setting(_COUNT, "2048", "training interactions per step"),
    "eval_batch_size": Setting(_COUNT, "4194304", "scores (users x items) per evaluation step"),
    "epochs": Setting(Range(0, whole=True), "1000", "training epochs at most"),
    "eval_step": Setting(Range(0, whole=True), "1", "epochs between validations; 0 validates never"),
    "early_stopping": Setting(
        Choice(("popularity", "recbole")),
        "popularity",
        "patience in validations and steps that does not count while the model ranks by popularity; or RecBole's, in "
        "validations only",
    ),
    "stopping_step": Setting(Range(0, whole=True), "10", "validations without a better score before training stops"),
    "patience_steps": Setting(
        Range(0, whole=True),
        "1000",
        "training steps without a better score before training stops, beside stopping_step",
    ),
    "plateau_steps": Setting(
        Range(0, whole=True), "20000", "steps after which patience counts even at the popularity ranking's score"
    ),
    "plateau_epochs": Setting(
        Range(0, whole=True), "500", "epochs after which patience counts even at the popularity ranking's score"
    ),
    "base_first": Setting(
        _FLAG, "True", "Con, Gen: train the base first, and keep it where the aligned model validates no better"
    ),
}

SETTINGS: dict[str, Setting] = {**MODEL_SETTINGS, **RUN_SETTINGS}


def inert(settings: Mapping[str, Any], free: Container[str] = ()) -> set[str]:
    """Return the names of settings that have no effect beside the others.

    Args:
        settings: all settings of a run.
        free: those whose values are not decided yet.
    """
    without: set[str] = set()
    if settings.get("early_stopping") == "recbole":
        without |= {"early_stopping", "patience_steps", "plateau_steps", "plateau_epochs"}
    for bound, weights in (("ssl_share", {"ssl_weight"}), ("alignment_share", ALIGNMENT_WEIGHTS)):
        if all(name in free or settings.get(name) != "auto" for name in weights):
            without.add(bound)
    return without


def setting(default: Any, allowed: Allowed, meaning: str, example: Optional[str] = None) -> Any:
    """Return a field of a :class:`Settings` class: its default, what it may be, and what it does.

    Args:
        default: of every class that reads the setting; a YAML of the class stands above it.
        allowed: its kind and range.
        meaning: half a sentence, which the README's table and error messages quote.
        example: of a value, as typed; the default, if not given.
    """
    described = Setting(allowed, str(default) if example is None else example, meaning)
    return field(default=default, metadata={_DESCRIBED: described})


#: Key of a field's metadata.
_DESCRIBED = "recbole_rlmrec"


def known(name: str, default: Any) -> Any:
    """Return a field for a setting that exists, with a default of one's own.

    Args:
        name: the setting, which is the field's name.
        default: of the classes that read the settings class.
    """
    return field(default=default, metadata={_DESCRIBED: SETTINGS[name]})


#: Settings that are an alignment's weight, which ``alignment_share`` bounds where it is ``auto``.
ALIGNMENT_WEIGHTS: set[str] = set()

#: Which class declared a setting first, by module and name.
_DECLARED_BY: dict[str, tuple[str, str]] = {}


def declare(settings: type[Settings]) -> None:
    """Make the settings of a class known: they are checked, listed and completed.

    Raises:
        ContractError: the class is no dataclass; a field says nothing of itself and is no known setting, is one that is
            known otherwise or one of RecBole's, or has a default out of its own range.
    """
    if "__dataclass_fields__" not in vars(settings):
        raise ContractError(f"{settings.__name__} is no dataclass: put @dataclass(frozen=True) above it.")
    owner = (settings.__module__, settings.__qualname__)
    found = {}
    for each in fields(settings):
        described, there = each.metadata.get(_DESCRIBED), SETTINGS.get(each.name)
        if described is None and (there is None or each.default is not MISSING):
            raise ContractError(
                f"{settings.__name__}.{each.name} does not say what it may be: declare it as {each.name}: {each.type} "
                f"= setting(default, allowed, meaning), or, for a setting that exists, known('{each.name}', default)."
            )
        if described is None:
            continue
        if each.default is not MISSING and each.default not in described.allowed:
            raise ContractError(
                f"{settings.__name__}.{each.name}: the default {each.default!r} is not {described.allowed}."
            )
        if there is None and each.name in _recboles_settings():
            raise ContractError(f"{settings.__name__}.{each.name} is a setting of RecBole's. Choose another name.")
        is_same = there is not None and (described.allowed, described.meaning) == (there.allowed, there.meaning)
        if there is not None and not is_same and _DECLARED_BY.get(each.name) != owner:
            raise ContractError(
                f"{settings.__name__}.{each.name}: there is a setting of this name ({there.meaning}). Choose another "
                f"one; or read that one, with a default of your own: known('{each.name}', default)."
            )
        if not is_same:
            found[each.name] = described
    SETTINGS.update(found)
    _DECLARED_BY.update(dict.fromkeys(found, owner))


def _recboles_settings() -> set[str]:
    from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

    return {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}


def defaults_of(settings: type[Settings]) -> dict[str, Any]:
    """Return the defaults that the fields of a class declare, by name."""
    return {each.name: each.default for each in fields(settings) if _DESCRIBED in each.metadata}


def completed(settings: type[_SettingsT], config: Any) -> _SettingsT:
    """Read a class's settings from a configuration whose model does not read them: what is not set has its default.

    Args:
        settings: the class; each of its fields declares a default.
        config: the run's configuration.

    Raises:
        SettingError: a value is out of range.
    """
    given = {name: config[name] for name in defaults_of(settings) if config[name] is not None}
    return settings.from_config({"model": settings.__name__, **defaults_of(settings), **given})


def check_value(name: str, value: Any, origin: str = "") -> None:
    """Raise unless ``value`` is one that the setting may have; settings not of our own pass.

    Args:
        name: the setting.
        value: what it was set to.
        origin: where the value comes from, for the message.

    Raises:
        SettingError: naming the setting, the value, its origin, what is allowed and an example.
    """
    setting = SETTINGS.get(name)
    if setting is None or value in setting.allowed:
        return
    where = f" (from {origin})" if origin else ""
    fault = " is out of range" if isinstance(setting.allowed, (Range, AutoOr)) else ""
    raise SettingError(
        f"{name}={value!r}{where}{fault}: expected {setting.allowed}, e.g. --{name}={setting.example}. "
        f"Meaning: {setting.meaning}."
    )


def require(config: Any, name: str) -> Any:
    """Return a setting that a model cannot do without.

    Args:
        config: the run's configuration.
        name: the setting.

    Raises:
        SettingError: it is missing or out of range, or the configuration is RecBole's own.
    """
    refuse_recboles_own(config)
    value = config[name]
    if value is None and not (name in SETTINGS and None in SETTINGS[name].allowed):
        example: Optional[str] = SETTINGS[name].example if name in SETTINGS else None
        raise SettingError(
            f"{config['model']} needs the setting '{name}', which no file sets. Put `{name}: {example or '...'}` into "
            f"properties/model/{config['model']}.yaml or a file given with --config_files, "
            f"or give --{name}={example or '...'} on the command line."
        )
    check_value(name, value)
    return value


def refuse_recboles_own(config: Any) -> None:
    """Refuse RecBole's own ``Config``, which knows neither the settings nor the data of this package's models.

    Raises:
        SettingError: saying what to import.
    """
    from recbole.config import Config

    if isinstance(config, Config) and not hasattr(config, "settings"):
        raise SettingError(
            f"{config['model']} was given RecBole's own Config, without its settings and its dataset; put `import "
            "recbole_rlmrec; recbole_rlmrec.register_with_recbole()` on top of the script, before Config(...)."
        )


def require_number(config: Any, name: str, why: str) -> float:
    """Return a weight that a model can take as a number only.

    Args:
        config: the run's configuration.
        name: the setting.
        why: what keeps this model from ``auto``, for the message.

    Raises:
        SettingError: it is missing, out of range or ``auto``.
    """
    value = require(config, name)
    if value == "auto":
        raise SettingError(f"{name}=auto: {why}. Give a number, e.g. --{name}=0.01.")
    return float(value)


@dataclass(frozen=True)
class Settings:
    """Base of a component's settings: one field per setting, read and checked once."""

    @classmethod
    def from_config(cls: type[_SettingsT], config: Any) -> _SettingsT:
        """Read the fields from the configuration; see :func:`require` for what it raises."""
        return cls(**{field.name: require(config, field.name) for field in fields(cls)})
