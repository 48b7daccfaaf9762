"""What the record answers: figures of closed days, unused tags, recall."""
