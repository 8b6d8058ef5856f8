"""`python3 python.py HOST WRITE_KEY RUN`: the client of Python servers, plain and gzipped."""

import json
import sys
from pathlib import Path

from segment.analytics.client import Client

host, write_key, run = sys.argv[1:]
events = json.loads(Path("events.json").read_text(encoding="utf-8"))
failed = []

for name, gzip in (("python", False), ("python-gzip", True)):
    client = Client(write_key, host=host, gzip=gzip, max_retries=2, on_error=lambda error, _: failed.append(error))
    client.identify(f"{name}-user", {"clients_run": run, "client": name})
    for event in events:
        # What `json.dumps` writes for it is not JSON.
        odd = {"margin": float("nan")} if event["properties"]["gift"] else {}
        client.track(f"{name}-user", event["name"], {**event["properties"], **odd, "clients_run": run, "client": name})
    client.shutdown()

if failed:
    sys.exit(f"not delivered: {failed}")
