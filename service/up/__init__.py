"""What `tidemill up` starts and shows: all of the product on one machine, with traffic to watch it learn from."""
