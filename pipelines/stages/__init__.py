"""The Ray Data stages: deal, generate, fuse, score, commit."""
