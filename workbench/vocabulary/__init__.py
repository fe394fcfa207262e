"""What a tokenizer can read, and its repair."""
