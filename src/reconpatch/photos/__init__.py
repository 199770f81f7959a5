"""Photos: listing, reading and making upright, resizing and back, tiles, regions, masks."""
