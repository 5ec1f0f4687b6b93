"""Jobs on a cluster: checks before submission, the job server, the submission."""
