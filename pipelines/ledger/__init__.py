"""What is made, what failed, what was asked for, and the account of a run."""
