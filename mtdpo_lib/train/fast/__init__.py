"""The fast step: the same numbers as TRL's, without work that nobody reads."""
