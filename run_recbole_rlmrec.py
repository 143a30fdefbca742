"""Train and test one model: ``python run_recbole_rlmrec.py --model=LightGCN_RLMRecCon --dataset=ml-100k``."""

import sys

from recbole_rlmrec.cli import train_main

if __name__ == "__main__":
    sys.exit(train_main())
