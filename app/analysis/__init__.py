"""What the record answers: figures of closed days, unused tags, storage, recall, who may see what."""
