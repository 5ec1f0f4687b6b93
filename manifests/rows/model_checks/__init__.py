"""What the base model and the LoRAs' files refuse of a row that is right by itself."""
