"""RecBole's settings: what they may be, which do nothing in a run, and what RecBole says of the others."""
