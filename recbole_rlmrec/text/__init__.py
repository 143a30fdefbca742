"""The texts of a dataset: items and reviews, their files, and columns of atomic files."""
