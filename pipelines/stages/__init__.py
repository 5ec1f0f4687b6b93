"""The Ray Data stages: deal, generate, score, commit."""
