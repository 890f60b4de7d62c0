"""One module for each page: each has its `routes`."""
