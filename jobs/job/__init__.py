"""A job: its file, settings, models and inputs, made into a request to the engine."""
