"""What people take away: contact sheet, data card, images.csv, copies, editions, shards."""
