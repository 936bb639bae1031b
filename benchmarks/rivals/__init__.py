"""What a user could put in Tidemill's place, one rival a file. `roster.py` lists them, `rival.py` says what one is."""
