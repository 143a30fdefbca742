"""From texts to semantic embeddings: profiles by a template, vectors by TF-IDF and a truncated SVD, then a check.

    python examples/text_to_embeddings.py --folder texts-example

No language model is asked and nothing is downloaded. In the same two places others can stand: ``writer="llm"`` asks a
language model for the profiles, ``encoder="sentence-transformers"`` encodes them by a model of sentences.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from recbole_rlmrec import RLMRecConfig, SemanticEmbedding
from recbole_rlmrec.semantics import BuildSettings, build_semantics


def main() -> None:
    """Write profiles of ml-100k's items and users, encode them, check them, and look at what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="texts-example", help="for the files of the dataset (%(default)s)")
    parser.add_argument("--item", default="50", help="item to look at (%(default)s)")
    parser.add_argument("--user", default="1", help="user to look at (%(default)s)")
    arguments = parser.parse_args()

    # Which columns of ml-100k hold text, properties/dataset/ml-100k.yaml says; for other data, give the settings here.
    config = RLMRecConfig("LightGCN_RLMRecCon", "ml-100k", config_dict={"data_path": arguments.folder})
    settings = BuildSettings(writer="template", encoder="lsa", overwrite=True)
    report = build_semantics(config, settings, report=print, progress=False)
    print(report)

    folder = Path(arguments.folder) / "ml-100k"
    for side, token in (("item", arguments.item), ("user", arguments.user)):
        lines = (folder / f"ml-100k.{side}prf.jsonl").read_text(encoding="utf-8").splitlines()
        profiles = {record["token"]: record["profile"] for record in map(json.loads, lines)}
        embedding = SemanticEmbedding.load([folder], "ml-100k", side)
        vector = np.asarray(embedding.vectors[list(embedding.tokens).index(token)])
        print(f"\n{side} {token}: {profiles[token]}\n  {len(vector)} numbers, such as {vector[:5].round(3).tolist()}")


if __name__ == "__main__":
    main()
