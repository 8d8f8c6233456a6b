"""This project beside what users would run instead, in one run and in turn."""
