"""What was done, what a disk may lose of it, and the states it may leave."""
