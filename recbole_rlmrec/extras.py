"""Packages that only some of this one needs: whether they are installed, and what to type where they are not."""

from __future__ import annotations

from importlib.util import find_spec

from recbole_rlmrec.errors import SettingError


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        found = find_spec(package)
    except ValueError:  # put into sys.modules by hand
        return True
    # Without a loader: RecBole's scripts may have been given a stand-in for Ray.
    return found is not None and found.loader is not None


def require_package(package: str, asked: str, install: str, otherwise: str = "") -> None:
    """Check that a package is installed.

    Args:
        package: name by which it is imported.
        asked: what needs it, such as ``log_wandb=True``.
        install: what pip is to install.
        otherwise: another way out, such as ``write .csv``.

    Raises:
        SettingError: it is not installed.
    """
    if not is_installed(package):
        advice = f", or {otherwise}" if otherwise else ""
        raise SettingError(
            f"{asked} needs the package '{package}', which is not installed: pip install {install}{advice}."
        )
