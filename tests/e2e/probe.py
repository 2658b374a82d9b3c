"""Poll `/healthz` until standard input ends, and print the milliseconds of each request."""

import http.client
import json
import select
import sys
import time
from urllib.parse import urlsplit


def main(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    took = []
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        start = time.perf_counter()
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"status": "ok"})
        took.append(1000 * (time.perf_counter() - start))
    sys.stdout.write(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1])
