"""From what a registry sends to what is on record."""
