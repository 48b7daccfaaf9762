"""What the record answers: figures of closed days, unused tags, recall, who may see what."""
