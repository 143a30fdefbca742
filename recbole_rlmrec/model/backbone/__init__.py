"""Backbones under one contract: LightGCN and SGL on RecBole's classes, SimGCL of our own."""
