"""The version of this package; CHANGELOG.md says what it promises."""

__version__ = "0.2.0"
