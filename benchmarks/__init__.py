"""Speed, memory and FLOPs, as ratios measured side by side in one run."""
