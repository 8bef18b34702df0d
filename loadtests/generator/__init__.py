"""Making load: when buyers come, what each does, and how it is sent and written down."""
