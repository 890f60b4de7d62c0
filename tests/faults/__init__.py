"""One file for each fault, numbered as in the list of what must not break."""
