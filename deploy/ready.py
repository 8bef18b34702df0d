"""Exit with 0 when the process behind this operations port says it is ready (a container's health check)."""

from __future__ import annotations

import http.client
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=2.0)
connection.request("GET", "/readyz")
sys.exit(connection.getresponse().status != 200)
