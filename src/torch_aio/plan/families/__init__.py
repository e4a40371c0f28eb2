"""The operator table, one family a file."""
