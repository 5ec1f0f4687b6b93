"""What a row's prompts say: read, marked where concepts stand, and cut into chunks."""
