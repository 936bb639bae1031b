"""`tidemill up` and `tidemill replay`: the whole product on one machine, with traffic to watch it learn from."""
