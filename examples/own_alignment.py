"""An alignment of your own: one class, registered, goes with every backbone.

    python examples/own_alignment.py

The alignment here has no projector. Users whose profiles are alike are to be represented alike: within a batch, the
cosines between the users' representations are drawn towards the cosines between their profiles. Once it is registered,
``LightGCN_Relational``, ``SGL_Relational``, ``BPR_Relational`` and so on are models, and ``relational_weight`` is a
setting that is checked as any other. A backbone is registered in the same way, see CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec import Alignment, Settings, register, run, setting
from recbole_rlmrec.settings import AUTO_WEIGHT, Weight


@dataclass(frozen=True)
class RelationalSettings(Settings):
    """Settings of the alignment; the first is its weight."""

    relational_weight: Weight = setting("auto", AUTO_WEIGHT, "Relational: weight of the term, or auto")


@register
class RelationalAlignment(Alignment):
    """The mean squared difference between two tables of cosines, of representations and of profiles."""

    ending = "_Relational"
    term_name = "relational"
    weight_setting = "relational_weight"
    settings_classes: ClassVar[tuple[type[Settings], ...]] = (RelationalSettings,)

    def build_alignment(self, config: Any, dataset: Any) -> None:
        """Read the semantic embeddings."""
        self.semantic = self.semantic_table(config, dataset, unit_length=True)

    def formula(self, representation: Any, interaction: Any, drawn: Any) -> Tensor:
        """Return the term for the batch's users that have a profile, a scalar."""
        users = self.alignment_anchors(interaction)[0].unique()
        users = users[self.semantic.covered[users]]
        vectors = normalize(representation.index_select(0, users), dim=1)
        profiles = self.semantic(users)
        return (vectors @ vectors.T - profiles @ profiles.T).square().mean()


def main() -> None:
    """Train a backbone alone and with the new alignment, and print both results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60, help="epochs at most (%(default)s)")
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "learning_rate": 0.005, "show_progress": False, "base_first": False}
    for model in ("LightGCN", "LightGCN_Relational"):
        result = run(model, "ml-100k", config_dict=settings, own_log=False)
        print(
            f"{model:<22}Recall@20 {result.test_result['recall@20']:.4f}  NDCG@20 {result.test_result['ndcg@20']:.4f}"
        )


if __name__ == "__main__":
    main()
