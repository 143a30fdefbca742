"""Errors a user can fix. The command line prints them as one message, without a traceback."""


class RLMRecError(Exception):
    """Base of every error whose message says what was found, where, what was expected and how to fix it."""


class SettingError(RLMRecError, ValueError):
    """A setting is unknown, missing or out of range, or a model's name is."""


class UnknownSettingError(SettingError):
    """A name that no setting has, or that the model does not read.

    Args:
        fault: a sentence that says so.
        name: the name.
        near: the setting that is most likely meant, if any.
        advice: a sentence for where none is near.
    """

    def __init__(self, fault: str, name: str, near: str | None = None, advice: str = "") -> None:
        super().__init__(fault, name, near, advice)
        self.fault, self.name, self.near, self.advice = fault, name, near, advice

    def __str__(self) -> str:
        advice = f"Did you mean '{self.near}'?" if self.near else self.advice
        return f"{self.fault} {advice}".rstrip()


class FolderError(RLMRecError, OSError):
    """A folder that a run writes to cannot be written to; no other run from there could either."""


class DataError(RLMRecError, ValueError):
    """A data file is missing, malformed, or does not belong to the dataset."""


class CheckpointError(RLMRecError, ValueError):
    """A checkpoint cannot be read, or belongs to another model."""


class ServiceError(RLMRecError, RuntimeError):
    """A server that was asked for text or vectors refuses, cannot be reached, or answers something unusable."""


class TrainingError(RLMRecError, RuntimeError):
    """A training went wrong: a loss that is no number, or a process that died."""


class StoppedError(RLMRecError):
    """A training was ended by what watches it, which is no failure."""


class MachineError(RLMRecError, OSError):
    """The machine ran out of something, such as disk or memory: it says nothing of what was computed."""


class ContractError(RLMRecError, TypeError):
    """A class from outside, or another part, returns or declares something else than the contract of its kind asks."""
