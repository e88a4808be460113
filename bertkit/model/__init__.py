"""A BERT: its configuration, parameters and tokenizer, read from a folder and written to one."""
