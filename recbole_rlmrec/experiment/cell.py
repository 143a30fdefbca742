"""One cell of a comparison: a model trained with a seed, in a process of its own, and what its test says.

``python -m recbole_rlmrec.experiment.cell CELL`` is how a comparison starts it; whatever becomes of the process,
the comparison goes on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import DataError, RLMRecError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.training.launch import end_with_parent


@dataclass(frozen=True)
class Cell:
    """What one process is to do.

    Attributes:
        model: class name.
        dataset: its name.
        seed: of the training.
        config_files: YAML files with settings.
        settings: over the files.
        folder: where its files go, see :meth:`path`.
    """

    model: str
    dataset: str
    seed: int
    config_files: list[str]
    settings: dict[str, Any]
    folder: str

    @property
    def name(self) -> str:
        """Of the cell's files."""
        return f"{self.model}-{self.seed}"

    def path(self, ending: str) -> Path:
        """Return the path of one of the cell's files.

        Args:
            ending: ``.json`` of the result, as ``--result_file`` writes it, which is there when the cell is done;
                ``.npz`` of the lists of the test users; ``.curves.json`` of the learning curves; ``.txt`` of what the
                process prints.
        """
        return Path(self.folder) / f"{self.name}{ending}"

    def command(self) -> list[str]:
        """Return what starts the process that runs this cell."""
        return [sys.executable, "-m", __name__, json.dumps(asdict(self))]


def run_cell(cell: Cell) -> None:
    """Train, test and write the result.

    Raises:
        RLMRecError: as :func:`recbole_rlmrec.quick_start.run`.
    """
    from recbole_rlmrec.experiment.curves import curves_of
    from recbole_rlmrec.quick_start import run

    seeded = {**cell.settings, "seed": cell.seed}
    result = run(cell.model, cell.dataset, config_file_list=cell.config_files, command_line=seeded)
    if result is None or result.test_result is None:
        raise DataError(f"{cell.dataset} has no interactions for the test, so there is nothing to compare.")
    if result.checkpoint:
        write_lists(result.checkpoint, cell.path(".npz"))
    with atomic_path(cell.path(".curves.json")) as temporary:
        temporary.write_text(json.dumps(curves_of(result.log, "validation score")) + "\n", encoding="utf-8")
    result.write(cell.path(".json"))


def write_lists(checkpoint: str, path: Path, config_dict: dict[str, Any] | None = None) -> None:
    """Write the lists of a checkpoint's test users, as long as the longest that its training was tested with.

    Args:
        checkpoint: its file.
        path: of the lists.
        config_dict: settings over the checkpoint's own, such as another ``data_path``.

    Raises:
        RLMRecError: as :func:`recbole_rlmrec.quick_start.load_model`.
    """
    from recbole_rlmrec.experiment.lists import lists_of
    from recbole_rlmrec.model.scores import evaluating
    from recbole_rlmrec.quick_start import load_model

    loaded = load_model(checkpoint, config_dict)
    with evaluating(loaded.model):
        lists_of(loaded.model, loaded.train_data, loaded.test_data, max(loaded.config["topk"])).write(path)


def main(arguments: list[str]) -> str | None:
    """Run the cell that an argument describes; return what went wrong, which ends the process with its status."""
    end_with_parent()  # the comparison, started again, would run the same cell beside it
    try:
        run_cell(Cell(**json.loads(arguments[0])))
    except RLMRecError as error:
        return f"error: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
