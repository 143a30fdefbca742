"""Train and test one model: ``python run_recbole_rlmrec.py --model=LightGCN_RLMRecCon --dataset=ml-100k``."""

import sys

if sys.version_info < (3, 11):
    major, minor = sys.version_info[:2]
    sys.exit(f"error: this is Python {major}.{minor}, and 3.11 or later is needed: python3.11 -m venv .venv")

from recbole_rlmrec.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
