"""One file a verb; its file's name is the verb's."""
