"""From two tables of a shop to recommendations: orders.csv and products.csv, a split, texts, embeddings, a model.

    python examples/from_csv.py --folder shop-example

The shop is made up: customers buy what belongs to their hobby, and sometimes anything else. With tables of your own,
leave out ``write_tables`` and name your columns in ``Tables``.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

from recbole_rlmrec import Recommender, RLMRecConfig, run
from recbole_rlmrec.semantics import BuildSettings, build_semantics
from recbole_rlmrec.sources.import_csv import Tables, import_csv
from recbole_rlmrec.sources.prepare import Choice

#: Words that titles and descriptions are made of, by hobby.
HOBBIES = {
    "climbing": ["rope", "harness", "carabiner", "chalk", "helmet", "belay device"],
    "baking": ["whisk", "flour", "rolling pin", "oven dish", "yeast", "cake tin"],
    "astronomy": ["telescope", "star map", "eyepiece", "tripod", "red torch", "moon filter"],
    "gardening": ["spade", "seeds", "watering can", "gloves", "compost", "pruning shears"],
    "painting": ["brush", "canvas", "easel", "acrylic paint", "palette", "varnish"],
    "cycling": ["bike pump", "chain oil", "saddle", "bell", "inner tube", "bike light"],
}
ADJECTIVES = ["light", "sturdy", "small", "large", "plain", "fine", "used", "simple", "costly", "new"]


def write_tables(folder: Path) -> None:
    """Write ``orders.csv`` and ``products.csv``, always the same."""
    draw = random.Random(7)
    products = [
        (f"P{number:03}", f"{adjective} {thing}", f"A {adjective} {thing} for {hobby}.", hobby)
        for number, (hobby, thing, adjective) in enumerate(
            (hobby, thing, adjective)
            for hobby, things in HOBBIES.items()
            for thing in things
            for adjective in ADJECTIVES
        )
    ]
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("sku", "name", "description", "department"), *products])
    with (folder / "orders.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("customer", "sku", "stars", "day"))
        for number in range(300):
            hobby = draw.choice(list(HOBBIES))
            for _ in range(12):
                liked = [product for product in products if product[3] == hobby or draw.random() < 0.05]
                day = f"2024-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
                writer.writerow((f"customer{number:03}", draw.choice(liked)[0], draw.randint(3, 5), day))


def main() -> None:
    """Write the tables, import them, make embeddings, train, and print what a customer is recommended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("shop-example"), help="for all files (%(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs at most (%(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(folder)

    tables = Tables(
        folder / "orders.csv",
        user="customer",
        item="sku",
        rating="stars",
        time="day",
        items=folder / "products.csv",
        title="name",
        text=("description", "department"),
    )
    choice = Choice(k_core=1, min_rating=4, shares=(8, 1, 1))
    print(import_csv(tables, "shop", folder / "dataset", choice, overwrite=True))

    settings = {
        "data_path": str(folder / "dataset"),
        "checkpoint_dir": str(folder / "saved"),
        "epochs": arguments.epochs,
        "show_progress": False,
    }
    config = RLMRecConfig("LightGCN_RLMRecCon", "shop", config_dict=settings)
    build_semantics(config, BuildSettings(writer="template", encoder="lsa", overwrite=True), progress=False)

    result = run("LightGCN_RLMRecCon", "shop", config_dict=settings, own_log=False)
    recall, popularity = (each["recall@20"] for each in (result.test_result, result.popularity["test"]))
    print(f"\nTest Recall@20 {recall:.4f}; of the most popular products {popularity:.4f}")

    with (folder / "products.csv").open(encoding="utf-8") as file:
        products = {row["sku"]: f"{row['name']} ({row['department']})" for row in csv.DictReader(file)}
    with (folder / "orders.csv").open(encoding="utf-8") as file:
        bought = {row["sku"] for row in csv.DictReader(file) if row["customer"] == "customer000"}
    loaded = result.load()
    lists = Recommender(loaded.model, loaded.dataset).recommend(["customer000"], k=5, without_items=bought)
    print("customer000 bought", *sorted(products[item] for item in bought)[:5], sep="\n  ")
    print("customer000 may like", *(products[item] for item in lists["item"]), sep="\n  ")


if __name__ == "__main__":
    main()
