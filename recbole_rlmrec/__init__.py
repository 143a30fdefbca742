"""RLMRec as a RecBole plug-in: recommenders aligned with language-model profiles of users and items."""

__version__ = "0.2.0"
