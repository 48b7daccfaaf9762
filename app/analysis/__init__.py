"""What the record answers: closed days, unused tags, storage, recall, who may see what."""
