"""The world of habits: generated questions, and a teacher that is wrong on purpose at a stated rate."""
