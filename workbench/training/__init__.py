"""From a base model to a fine-tuned one."""
