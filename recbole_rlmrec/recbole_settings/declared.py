"""The settings of RecBole's that people set: what each may be, as RecBole's documentation and code have it.

RecBole checks few of its settings, and some only after an epoch; others it takes for something else without a word (an
unknown ``learner`` is Adam). Ours are declared in the classes that read them, and go before these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.recbole_settings.kinds import (
    Either,
    Infinity,
    Intervals,
    Kind,
    ListOf,
    MappingOf,
    Nothing,
    Shares,
    Text,
    Word,
    flaw,
    nan_in,
)
from recbole_rlmrec.settings import (
    COUNT,
    COUNT_OR_NONE,
    FEW,
    FLAG,
    POSITIVE,
    SEED,
    SETTINGS,
    WEIGHT,
    Choice,
    Range,
    given,
)


class _Declared(NamedTuple):
    """What a setting may be, a value as typed, and what it does."""

    kind: Kind
    example: str
    meaning: str


def _or_nothing(kind: Kind) -> Either:
    return Either(kind, Nothing())


_TEXT = Text("text")
_NAME = Text("a name")
_NAMES = ListOf(_NAME, "a list of names", may_be_empty=True)
_NAMES_OR_NONE = _or_nothing(_NAMES)
_FLAG_OR_NONE = _or_nothing(FLAG)
_ANY_NUMBER = Range(-float("inf"), includes_low=False)
_PLACES = Range(1, 16, whole=True)
_DROPOUT = Range(0, 1, includes_high=False)
_WIDTHS = ListOf(COUNT, "a list of whole numbers at least 1", may_be_empty=True)
_OF_FILES = MappingOf("a mapping from kinds of files to columns", {}, values=Either(_NAMES, Choice(("*",)), Nothing()))
_MODE = Text("full, labeled, uniN or popN, such as uni100", r"full|labeled|(uni|pop)[1-9]\d{0,8}")
# The sum of shares beyond any number of interactions may be infinite.
_RATIOS = Shares(
    Range(0, 1e12), "three numbers from 0 on (three parts are needed: training, validation and test)", length=3
)
_LEAVE_ONE = Choice(("valid_and_test",))
#: RecBole 1.2.1 has a third way, of which RecBole 1.2.0 says itself that it does not know it.
_SPLIT = MappingOf(
    "{RS: [8, 1, 1]} (ratios) or {LS: valid_and_test} (the last ones)",
    {"RS": _RATIOS, "LS": _LEAVE_ONE, "TS": ListOf(Either(_TEXT, _ANY_NUMBER), "a list of times")},
    length=1,
)
_GPUS = Text(
    "GPU numbers separated by commas", r"|-1|(\d+|GPU-[-\w]+|MIG-[-\w/]+)(\s*,\s*(\d+|GPU-[-\w]+|MIG-[-\w/]+))*"
)

_SAMPLED = MappingOf(
    "a mapping such as {distribution: uniform, sample_num: 1}",
    {
        "distribution": Either(Choice(("uniform", "popularity", "none", "None")), Nothing()),
        "sample_num": Range(1, 100_000, whole=True),
        # RecBole raises shares of 1e-6 and less to it: larger powers are 0.
        "alpha": Range(0, 10),
        "dynamic": FLAG,
        "candidate_num": COUNT_OR_NONE,
    },
)
_EVALUATED = MappingOf(
    "a mapping such as {split: {RS: [8, 1, 1]}, order: RO, group_by: user, mode: full}",
    {
        "split": _or_nothing(_SPLIT),
        "order": Choice(("RO", "TO")),
        "group_by": Either(Choice(("user", "none", "None")), Nothing()),
        "mode": Either(_MODE, MappingOf("a mapping of valid and test", {"valid": _MODE, "test": _MODE})),
    },
)
_CLIPPED = MappingOf(
    "a mapping such as {max_norm: 5, norm_type: 2}",
    {
        "max_norm": POSITIVE,
        "norm_type": Either(POSITIVE, Infinity()),
        "error_if_nonfinite": FLAG,
        "foreach": _FLAG_OR_NONE,
    },
    required=("max_norm",),
)
_VALUES = Either(Intervals(), ListOf(Either(_TEXT, _ANY_NUMBER), "a list of values"))

#: Name -> kind, example, meaning.
RECBOLE_SETTINGS: dict[str, _Declared] = {
    # Environment.
    "gpu_id": _Declared(Either(COUNT_OR_NONE, _GPUS, Nothing()), "0,1", "GPUs to take; '' for none"),
    "worker": _Declared(Range(0, 256, whole=True), "0", "processes that load batches"),
    "use_gpu": _Declared(FLAG, "False", "compute on a GPU where there is one"),
    "seed": _Declared(SEED, "2020", "seed of every random number"),
    "state": _Declared(
        _or_nothing(Word(("info", "debug", "warning", "error", "critical"))), "INFO", "what is written to the log"
    ),
    "reproducibility": _Declared(FLAG, "True", "the same numbers each time"),
    "data_path": _Declared(_TEXT, "dataset/", "folder of the datasets"),
    "checkpoint_dir": _Declared(_TEXT, "saved", "folder of the checkpoints"),
    "show_progress": _Declared(FLAG, "False", "a progress bar"),
    "log_wandb": _Declared(FLAG, "False", "report to Weights & Biases"),
    "shuffle": _Declared(FLAG, "True", "another order of the training data in each epoch"),
    # Training.
    "epochs": _Declared(COUNT_OR_NONE, "300", "training epochs at most"),
    "train_batch_size": _Declared(COUNT, "2048", "training interactions per step"),
    "learner": _Declared(Word(("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")), "adam", "the optimiser"),
    "learning_rate": _Declared(POSITIVE, "0.001", "step size of the optimiser"),
    "train_neg_sample_args": _Declared(
        Either(_SAMPLED, Nothing(), Choice(("None",))),
        "{distribution: uniform, sample_num: 1}",
        "negatives in training",
    ),
    "eval_step": _Declared(COUNT_OR_NONE, "1", "epochs between validations"),
    "stopping_step": _Declared(COUNT_OR_NONE, "10", "validations without a better score before training stops"),
    "clip_grad_norm": _Declared(
        _or_nothing(_CLIPPED),
        "{max_norm: 5, norm_type: 2}",
        "the largest norm of the gradients, which are scaled to it",
    ),
    "weight_decay": _Declared(WEIGHT, "0.0001", "L2 penalty of the optimiser"),
    "loss_decimal_place": _Declared(_PLACES, "4", "digits of a loss in the log"),
    "require_pow": _Declared(FLAG, "False", "square the norms of the L2 term"),
    "enable_amp": _Declared(FLAG, "False", "products in bfloat16"),
    "enable_scaler": _Declared(FLAG, "False", "scale the loss under enable_amp"),
    "transform": _Declared(
        Either(
            Choice(("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")), Nothing()
        ),
        "mask_itemseq",
        "what is done to sequences in a batch",
    ),
    # Evaluation.
    "eval_args": _Declared(_EVALUATED, "{split: {RS: [8, 1, 1]}, mode: full}", "split and evaluation"),
    "repeatable": _Declared(FLAG, "False", "rank items that a user knows as well"),
    "metrics": _Declared(
        Either(_NAME, ListOf(_NAME, "a list of names")), "[Recall, NDCG]", "what is computed at validation and test"
    ),
    "topk": _Declared(
        Either(COUNT, ListOf(COUNT, "a list of such numbers, as [5, 10]")), "[5, 10, 20]", "ranks that metrics look at"
    ),
    "valid_metric": _Declared(
        Text("a metric, with @k where it is one of rankings"), "Recall@20", "metric that chooses the best epoch"
    ),
    "eval_batch_size": _Declared(COUNT, "4194304", "scores per evaluation step"),
    "metric_decimal_place": _Declared(_PLACES, "4", "digits that metrics are rounded to"),
    "tail_ratio": _Declared(_or_nothing(WEIGHT), "0.1", "share of the items that are the tail, or their interactions"),
    # Data.
    "benchmark_filename": _Declared(
        _or_nothing(ListOf(_NAME, "three names (three parts are needed: training, validation and test)", length=3)),
        "[train, valid, test]",
        "files of a split that is ready: <dataset>.<name>.inter",
    ),
    "load_col": _Declared(_or_nothing(_OF_FILES), "{inter: [user_id, item_id]}", "columns that are read"),
    "unload_col": _Declared(_or_nothing(_OF_FILES), "{inter: [rating]}", "columns that are not read"),
    "unused_col": _Declared(_or_nothing(_OF_FILES), "{inter: [rating]}", "columns that are dropped after filtering"),
    "additional_feat_suffix": _Declared(
        Either(_NAME, _NAMES, Nothing()), "[useremb]", "further files: <dataset>.<suffix>"
    ),
    "rm_dup_inter": _Declared(Either(Choice(("first", "last")), Nothing()), "first", "of equal pairs, which one stays"),
    "val_interval": _Declared(
        _or_nothing(MappingOf("a mapping from columns to intervals, or to lists of values", {}, values=_VALUES)),
        "{rating: '[3,inf)'}",
        "rows to keep, by the values of columns",
    ),
    "filter_inter_by_user_or_item": _Declared(
        _FLAG_OR_NONE, "True", "leave out interactions of users and items that the .user and .item files lack"
    ),
    "user_inter_num_interval": _Declared(_or_nothing(Intervals()), "[10,inf)", "interactions of the users to keep"),
    "item_inter_num_interval": _Declared(_or_nothing(Intervals()), "[10,inf)", "interactions of the items to keep"),
    "threshold": _Declared(
        _or_nothing(MappingOf("one column and a number", {}, values=_ANY_NUMBER, length=1)),
        "{rating: 3}",
        "values from which on an interaction is labelled 1",
    ),
    "normalize_field": _Declared(_NAMES_OR_NONE, "[age]", "columns that are scaled to [0, 1]"),
    "normalize_all": _Declared(_FLAG_OR_NONE, "True", "scale all columns of numbers to [0, 1]"),
    "preload_weight": _Declared(
        _or_nothing(MappingOf("a mapping from a column of ids to one of vectors", {}, values=_NAME)),
        "{uid: useremb}",
        "vectors that models read",
    ),
    "seq_len": _Declared(
        _or_nothing(MappingOf("a mapping from columns to lengths", {}, values=COUNT)),
        "{genres: 5}",
        "longest sequences",
    ),
    "numerical_features": _Declared(_NAMES_OR_NONE, "[age]", "columns of numbers that models embed"),
    "field_separator": _Declared(Text("text of a character or more"), "','", "what separates columns"),
    "seq_separator": _Declared(Text("text of a character or more"), "' '", "what separates the values of a sequence"),
    **{
        name: _Declared(_NAME, example, "name of a column")
        for name, example in (
            ("USER_ID_FIELD", "user_id"),
            ("ITEM_ID_FIELD", "item_id"),
            ("RATING_FIELD", "rating"),
            ("TIME_FIELD", "timestamp"),
            ("LABEL_FIELD", "label"),
        )
    },
    "MAX_ITEM_LIST_LENGTH": _Declared(Range(1, 100_000, whole=True), "50", "longest history of a user"),
    # Models; those of RecBole's that mean something else by a name do not have it here.
    "embedding_size": _Declared(COUNT, "64", "width of the embeddings"),
    "hidden_size": _Declared(COUNT, "64", "width of the layers"),
    "n_layers": _Declared(FEW, "2", "layers"),
    "num_layers": _Declared(FEW, "1", "layers"),
    "mlp_hidden_size": _Declared(_WIDTHS, "[128, 64]", "widths of the layers"),
    **{
        name: _Declared(_DROPOUT, "0.1", "share that is dropped in training")
        for name in (
            "dropout_prob",
            "hidden_dropout_prob",
            "attn_dropout_prob",
            "message_dropout",
            "node_dropout",
            "mess_dropout",
            "mess_dropout_rate",
            "node_dropout_rate",
        )
    },
}


#: What settings of older RecBoles are called now.
FORMER_NAMES = {
    **dict.fromkeys(("neg_sampling", "training_neg_sample_num"), "train_neg_sample_args"),
    **dict.fromkeys(("eval_setting", "split_ratio", "group_by_user", "leave_one_num"), "eval_args"),
    **dict.fromkeys(("lowest_val", "highest_val", "equal_val", "not_equal_val"), "val_interval"),
    **dict.fromkeys(("min_user_inter_num", "max_user_inter_num"), "user_inter_num_interval"),
    **dict.fromkeys(("min_item_inter_num", "max_item_inter_num"), "item_inter_num_interval"),
}


def check_recbole_settings(
    settings: Mapping[str, Any], external: Mapping[str, Any], origins: Mapping[str, str], *, is_own: bool
) -> None:
    """Raise unless the settings are ones that RecBole can use.

    Args:
        settings: all of a run, defaults included.
        external: those that the user gave.
        origins: where they come from, for messages.
        is_own: whether the model is ours, whose settings are checked as they are declared.

    Raises:
        SettingError: naming the setting, its value, its origin, what is expected and an example.
    """
    for name, value in external.items():
        if nan_in(value):
            raise SettingError(
                f"{given(name, value, origins.get(name, ''))} holds NaN, which is no number. Give a number, or leave "
                "the setting out."
            )
    for name, declared in RECBOLE_SETTINGS.items():
        if name not in settings or (is_own and name in SETTINGS) or settings[name] in declared.kind:
            continue
        if name not in external and settings[name] is None:
            continue  # RecBole's files leave some open
        raise SettingError(
            f"{given(name, settings[name], origins.get(name, ''))}: {flaw(declared.kind, settings[name])}, e.g. "
            f'--{name}="{declared.example}". Meaning: {declared.meaning}.'
        )
    if settings.get("log_wandb"):
        require_package("wandb", "log_wandb=True", "'recbole-rlmrec[wandb]'")
    negatives = settings.get("train_neg_sample_args")
    if isinstance(negatives, Mapping) and negatives.get("dynamic") and not negatives.get("candidate_num"):
        raise SettingError(
            f"{given('train_neg_sample_args', dict(negatives), origins.get('train_neg_sample_args', ''))}: dynamic "
            "negatives are chosen among candidates; give candidate_num, e.g. {dynamic: True, candidate_num: 5}."
        )
