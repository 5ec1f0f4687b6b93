"""What is written: the tables, a committed unit, its images, and the messages between stages."""
