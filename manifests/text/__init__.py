"""Text as people write it: rules for values, sentences for mistakes, JSON and YAML."""
