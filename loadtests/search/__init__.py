"""What ``flashproof sweep`` decides, draws and measures: the search, the laws, the limiter, one trial, the page."""
