"""RLMRec as a RecBole plug-in: recommenders aligned with language-model profiles of users and items."""

__version__ = "0.1.0"
