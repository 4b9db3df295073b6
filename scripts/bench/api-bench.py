#!/usr/bin/env python3
"""Measures the API: lists and creates at 1, 100 and 1,000 services, on one manager and on three, and what they weigh.

  scripts/bench/api-bench.py            all of it (about four minutes)
  scripts/bench/api-bench.py --short    1 and 20 services and a second each, to see that it works

Services have no tasks: what is measured is the way of a request, not of a container. Lists are `GET /services`, by one
client that asks one after another and by 16 at once; they are read to their end and not parsed. Creates go to the leader, and
with three managers to all of them as well; what they made is removed again before the next size. The client is Python's and
on the same CPUs: `hosts_cpu_ms_each` is what the daemons themselves took. Each size has its own figure of the disk:
milliseconds of a write of 2 KiB and fdatasync.

Needs root, and what flok-bench.py needs. A table goes to stderr, JSON to stdout.
"""

import argparse
import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import Lab, run  # noqa: E402
from measure import fdatasync, storm  # noqa: E402
from report import machine  # noqa: E402
from swarm import Swarm, parts, pause, spec  # noqa: E402

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLIENTS = 16


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def list_services(connection, _):
    return connection.call("GET", "/services", raw=True)


class Bench:
    def __init__(self, options):
        self.options = options
        self.lab = Lab(options.flok, options.image)
        self.swarm = Swarm(self.lab)
        self.made = 0

    def run(self):
        results = {"machine": machine(self.options.flok), "load": os.getloadavg(), "managers": {}}
        first = self.swarm.init()
        results["managers"]["1"] = self.sizes(first)
        for _ in range(2):
            self.swarm.join(first, "manager")
        results["managers"]["3"] = self.sizes(first)
        return results

    def sizes(self, via):
        found = {}
        for size in self.options.sizes:
            self.grow(via, size)
            found[str(size)] = self.at(via)
            say("%d managers, %d services: %s" % (len(self.lab.hosts), size, json.dumps(found[str(size)])))
        self.shrink(via, 0)
        return found

    def at(self, via):
        leader = self.swarm.leader(via)
        others = [host for host in self.lab.hosts if host is not leader]
        seconds, count = self.options.seconds, self.options.creates
        found = {"fdatasync_ms": fdatasync(self.lab.dir), "list": self.listed([leader]), "create": self.created([leader])}
        if others:
            found["list_on_a_follower"] = self.listed(others[:1])
            found["create_on_all"] = self.created(self.lab.hosts)
        found["create_one_client"] = self.created([leader], clients=1, count=count // 4, seconds=seconds)
        found["memory"] = {"n%d" % host.index: parts(host)["flok"] for host in self.lab.hosts}
        return found

    def listed(self, hosts):
        # A list of the same state may be kept made: the first one counts as little as the others.
        one = storm(self.lab, hosts, list_services, self.options.seconds, 1000000, clients=1)
        return {"one_client": one, "at_once": storm(self.lab, hosts, list_services, self.options.seconds, 1000000, CLIENTS)}

    def created(self, hosts, clients=CLIENTS, count=None, seconds=None):
        before = self.names(hosts[0])
        base = self.made
        self.made += count or self.options.creates

        def create(connection, turn):
            return connection.call("POST", "/services/create", spec("made-%d" % (base + turn), 0))
        found = storm(self.lab, hosts, create, seconds or self.options.seconds * 5, count or self.options.creates, clients)
        self.remove(hosts[0], self.names(hosts[0]) - before)
        return found

    @staticmethod
    def names(host):
        status, services = host.call("GET", "/services")
        if status != 200:
            raise RuntimeError("GET /services: %s" % services)
        return {service["Spec"]["Name"] for service in services}

    def grow(self, via, size):
        missing = size - len(self.names(via))

        def create(connection, turn):
            return connection.call("POST", "/services/create", spec("kept-%d" % (size - missing + turn), 0))
        storm(self.lab, [via], create, 600, missing, CLIENTS)
        found = len(self.names(via))
        if found != size:
            raise RuntimeError("%d services where %d are wanted" % (found, size))

    def shrink(self, via, size):
        self.remove(via, set(sorted(self.names(via))[size:]))

    def remove(self, via, names):
        names = sorted(names)
        storm(self.lab, [via], lambda connection, turn: connection.call("DELETE", "/services/" + names[turn], raw=True),
              600, len(names), CLIENTS)
        pause(0.5)

    def close(self):
        self.lab.close()


def table(results):
    lines = ["managers services             what      per s   p50 ms   p99 ms  CPU ms each"]

    def line(managers, size, what, row):
        latency = row.get("latency_ms", {})
        lines.append("%8s %8s %16s %10.1f %8.2f %8.2f %12.2f%s" % (
            managers, size, what, row["per_s"], latency.get("p50", 0), latency.get("p99", 0), row.get("hosts_cpu_ms_each", 0),
            "  %d ERRORS" % row["errors"] if row["errors"] else ""))
    for managers, sizes in results["managers"].items():
        for size, found in sizes.items():
            for what, row in found.items():
                if what.startswith("list"):
                    line(managers, size, what.replace("list_on_a", "list,"), row["one_client"])
                    line(managers, size, "16 at once", row["at_once"])
                elif what.startswith("create"):
                    line(managers, size, what.replace("_", " "), row)
            memory = ", ".join("%s %.1f / %.1f" % (name, row["rss_mib"], row["pss_mib"]) for name, row in found["memory"].items())
            disk = found["fdatasync_ms"]
            lines.append("%17s fdatasync p50 %.2f p99 %.2f ms; RSS / PSS MiB: %s" % ("", disk["p50"], disk["p99"], memory))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flok", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", REPO + "/target"), "release/flok"))
    parser.add_argument("--sizes", default="1,100,1000", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--seconds", type=float, default=4, help="of each list")
    parser.add_argument("--creates", type=int, default=1000, help="at most, at each size")
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.sizes, options.seconds, options.creates = [1, 20], 1, 40
    images = "/var/tmp/flok-bench-images"
    run(REPO + "/docker/images.sh", images, "busybox")
    options.image = images + "/busybox.tar"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options)
    try:
        results = bench.run()
    finally:
        bench.close()
    say("\n" + table(results))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
