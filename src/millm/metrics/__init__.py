"""Numbers for Prometheus: what is counted while the server runs, and what is so when it is asked."""
