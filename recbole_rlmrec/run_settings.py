"""The settings of a run, whatever its model: data, texts, evaluation, training."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Literal

from recbole_rlmrec.settings import (
    COUNT,
    COUNT_OR_NONE,
    FLAG,
    NAMES,
    POSITIVE,
    SEED,
    SHARE,
    TEXT,
    Choice,
    NameInFiles,
    Settings,
    setting,
)

Reaction = Literal["warn", "error"]
TextDomain = Literal["general", "books", "businesses", "games", "movies"]
EvalProtocol = Literal["recbole", "paper"]
Defaults = Literal["recommended", "published"]
EarlyStoppingRule = Literal["popularity", "recbole"]
WithheldSide = Literal["both", "users", "items"]


@dataclass(frozen=True)
class DataSettings(Settings):
    """Where the interactions and the texts of a dataset lie."""

    split_file: str | None = setting(
        None, TEXT, "a file beside the dataset that says train, valid or test by row", "my-split.tsv"
    )
    # Used where the column exists.
    split_field: str | None = setting(
        "split", TEXT, "name of a column of the .inter file that says train, valid or test"
    )
    cold_nodes: Reaction = setting(
        "warn", Choice.of(Reaction), "what to do about users or items without a training interaction"
    )
    # Texts of profiles in the atomic files; items.jsonl and reviews.jsonl beside them go before.
    item_title_field: str | None = setting(None, TEXT, "column of the .item file with the items' titles", "title")
    item_description_field: str | None = setting(
        None, TEXT, "column of the .item file with prose about the items", "description"
    )
    item_attribute_fields: list[str] | None = setting(
        None, NAMES, "columns of the .item file shown in profiles", "[genres]"
    )
    user_attribute_fields: list[str] | None = setting(
        None, NAMES, "columns of the .user file shown in profiles", "[age]"
    )
    review_field: str | None = setting(None, TEXT, "column of the .inter file with the users' words", "review")
    text_domain: TextDomain = setting("general", Choice.of(TextDomain), "what the items are, for the prompts", "books")
    semantic: str | None = setting(
        None, NameInFiles(), "which of several tables of semantic embeddings, by the name in its files' names", "minilm"
    )
    encoder_model: str | None = setting(
        None, TEXT, "where the model of the text encoder lies now, for texts of new items and queries", "models/minilm"
    )
    leakage: Reaction = setting(
        "error", Choice.of(Reaction), "what to do about profiles written from another training split"
    )


@dataclass(frozen=True)
class AblationSettings(Settings):
    """What a run is deprived of, to see what it was worth: the same draw for every model and every seed."""

    noise_share: float = setting(
        0.0, SHARE, "add pairs that nobody has to the training interactions, this share of their number", "0.1"
    )
    withheld_share: float = setting(0.0, SHARE, "share of the profiles that are treated as missing", "0.5")
    withheld_side: WithheldSide = setting("both", Choice.of(WithheldSide), "whose profiles withheld_share withholds")
    shuffled_profiles: bool = setting(False, FLAG, "give each node the profile of another one of its side")


@dataclass(frozen=True)
class RunSettings(Settings):
    """How a run is evaluated, what its defaults are, and how it is trained.

    The published values are RecBole's own (recbole 1.2.0 and 1.2.1, properties/overall.yaml); so are the defaults of
    settings of RecBole's that declare none here.
    """

    eval_protocol: EvalProtocol = setting(
        "recbole", Choice.of(EvalProtocol), "whose evaluation: RecBole's own, or that of the RLMRec paper"
    )
    defaults: Defaults = setting(
        "recommended",
        Choice.of(Defaults),
        "defaults for data of your own, or the numbers of RecBole and of the original papers",
    )
    tuned: bool = setting(True, FLAG, "load properties/tuned/<dataset>/<Class>.yaml where there is one")
    result_file: str | None = setting(
        None, TEXT, "where to write the run's settings and results as JSON", "result.json"
    )
    resume_from: str | None = setting(None, TEXT, "checkpoint whose training goes on", "saved/X.pth")
    init_from: str | None = setting(
        None,
        TEXT,
        "where the tables of users and items start from: a checkpoint, joined by id, or text, their semantic "
        "embeddings; resume_from goes before it",
        "saved/X.pth",
    )
    base_first: bool = setting(
        True,
        FLAG,
        "Con, Gen: train the base first, and keep it where the aligned model validates no better",
        published=False,
    )
    # At most; early stopping ends a training.
    epochs: int = setting(1000, COUNT_OR_NONE, "training epochs at most", published=300)
    # RecBole counts scores here, not users: its 4096 ranks two users of ml-100k at a time. 2^22 scores are 16 MiB, and
    # faster than larger blocks, which leave the cache.
    eval_batch_size: int = setting(4194304, COUNT, "scores (users x items) per evaluation step")


@dataclass(frozen=True)
class RecBolesSettings(Settings):
    """Settings of RecBole's, with RecBole's defaults: what they may be."""

    seed: int = setting(MISSING, SEED, "seed of every random number", "2020")
    learning_rate: float = setting(MISSING, POSITIVE, "step size of the optimiser", "0.001")
    train_batch_size: int = setting(MISSING, COUNT, "training interactions per step", "2048")
    eval_step: int = setting(MISSING, COUNT_OR_NONE, "epochs between validations; 0 validates never", "1")


@dataclass(frozen=True)
class StoppingSettings(Settings):
    """Settings of :class:`~recbole_rlmrec.training.stopping.EarlyStopping`.

    RecBole stops after ``stopping_step`` validations without a better score, which on sparse data is often while the
    model still ranks by popularity.
    """

    early_stopping: EarlyStoppingRule = setting(
        "popularity",
        Choice.of(EarlyStoppingRule),
        "patience in validations and steps that does not count while the model ranks by popularity; or RecBole's, in "
        "validations only",
        published="recbole",
    )
    stopping_step: int = setting(10, COUNT_OR_NONE, "validations without a better score before training stops")
    patience_steps: int = setting(
        1000, COUNT_OR_NONE, "training steps without a better score before training stops, beside stopping_step"
    )
    plateau_steps: int = setting(
        20000, COUNT_OR_NONE, "steps after which patience counts even at the popularity ranking's score"
    )
    plateau_epochs: int = setting(
        500, COUNT_OR_NONE, "epochs after which patience counts even at the popularity ranking's score"
    )


#: The settings classes of every run, which the registry of models declares with those of the models.
RUN_CLASSES: tuple[type[Settings], ...] = (
    DataSettings,
    AblationSettings,
    RunSettings,
    RecBolesSettings,
    StoppingSettings,
)

#: Settings that change what is read of texts, which a base does not.
OF_PROFILES: frozenset[str] = frozenset({"semantic", "withheld_share", "withheld_side", "shuffled_profiles"})

#: Names of the settings of every run.
RUN_SETTINGS: frozenset[str] = frozenset(field.name for settings in RUN_CLASSES for field in fields(settings))
