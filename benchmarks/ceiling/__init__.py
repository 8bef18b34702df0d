"""What the hot path costs beside the cheapest servers there are: one run, interleaved, same pinning, same bytes."""
