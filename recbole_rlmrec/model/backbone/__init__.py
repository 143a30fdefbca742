"""Backbones under one contract: LightGCN and SGL on RecBole's classes, the others of our own."""
