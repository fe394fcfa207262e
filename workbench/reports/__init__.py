"""What a reader sees: figures, sentences, the model card and the report."""
