"""Prompts with their concepts: marked where these stand, and cut into chunks."""
