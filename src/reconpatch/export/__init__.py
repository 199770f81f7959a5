"""Models for other programs: files in 32 or 8 bits with programs that run them; timing."""
