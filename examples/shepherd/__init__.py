"""A fleet manager in three control loops, and a fake provider of machines for it to manage."""
