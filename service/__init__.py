"""The processes of Tidemill: the trainer, the scoring workers and the commands around them."""
