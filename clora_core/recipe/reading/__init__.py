"""What the signs in a prompt mean, and the words that are left."""
