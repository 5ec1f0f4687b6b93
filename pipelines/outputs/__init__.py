"""What people take away: contact sheet, data card, editions, WebDataset shards."""
