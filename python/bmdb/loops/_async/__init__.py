"""What the instances of a loop do, by hand."""
