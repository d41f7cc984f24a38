"""What the stage `decide` is made of: candidates, comparisons, the record, examples for people."""
