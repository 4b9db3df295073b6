#!/usr/bin/env python3
"""Measures how soon an endpoint that is to stop, is unhealthy, or whose node is suspected, is out of names and virtual
addresses.

  scripts/bench/endpoint-bench.py            20 stops, 10 sick tasks and 5 suspicions (about six minutes)
  scripts/bench/endpoint-bench.py --short    2 of each, to see that it works

Three managers, a service of three tasks, and on each host a task that asks. A stop is an update of the service from three
replicas to two; its clock starts before the request is sent, so the request, Raft's write and the leader's planning are in
the figure. A suspicion is a host's link going down; its clock starts when the status of the leader first shows the node as
suspect, asked every 2 ms. A task falls sick by a file that its check looks for; its clock starts when the leader's
explanation of the service first says that a check fails, asked every 2 ms. The clocks end, on each host that can be
reached, when `nft monitor` tells of the virtual address' chain without the endpoint, and when an answer of the host's
resolver to a task, asked every 2 ms, first lacks it.
Everything is on one machine and reads one clock.

Needs root, and what flok-bench.py needs. A table goes to stderr, JSON to stdout.
"""

import argparse
import ctypes
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import Lab, run, wait_for  # noqa: E402
from measure import now, spread  # noqa: E402
from report import machine  # noqa: E402
from swarm import IMAGE, Swarm, running  # noqa: E402

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEWNET = 0x40000000
ASK_EVERY = 0.002
WITHIN = 20
LIBC = ctypes.CDLL(None, use_errno=True)
WEB = ["sleep", "1000001"]
STACK = """
services:
  web:
    image: %(image)s
    command: %(web)s
    stop_signal: SIGKILL
    healthcheck: { test: ['CMD', 'test', '!', '-e', '/sick'], interval: 500ms, timeout: 30s, retries: 1 }
    deploy: { replicas: 3, placement: { max_replicas_per_node: 1 } }
  client:
    image: %(image)s
    command: [sleep, '1000000']
    stop_signal: SIGKILL
    deploy: { mode: global }
""" % {"image": IMAGE, "web": json.dumps(WEB)}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def socket_in(path):
    """A socket of UDP in the network namespace at `path`, where it stays."""
    made = []

    def make():
        with open(path) as namespace:
            if LIBC.setns(namespace.fileno(), NEWNET):
                raise OSError(ctypes.get_errno(), path)
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(1)
    made[0].connect(("127.0.0.11", 53))
    return made[0]


def look_up(asking, name):
    """The IPv4 addresses that a resolver gives."""
    number = random.randrange(65536)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    asking.send(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1))
    answer = asking.recv(2048)
    at, found = 12 + len(labels) + 5, []
    for _ in range(struct.unpack("!H", answer[6:8])[0]):
        while answer[at] and answer[at] < 0xc0:
            at += 1 + answer[at]
        at += 2 if answer[at] else 1
        length = struct.unpack("!H", answer[at + 8:at + 10])[0]
        found.append(socket.inet_ntoa(answer[at + 10:at + 14]) if length == 4 else "")
        at += 10 + length
    return found


class Names(threading.Thread):
    """Asks a host's resolver until it does not tell all of `addresses` any more: when that was."""

    def __init__(self, asking, addresses):
        super().__init__(daemon=True)
        self.asking, self.addresses, self.gone, self.ended = asking, set(addresses), None, False
        self.start()

    def run(self):
        while not self.ended:
            try:
                if self.addresses - set(look_up(self.asking, "tasks.s_web")):
                    self.gone = now()
                    return
            except OSError:
                pass
            time.sleep(ASK_EVERY)


class Chains(threading.Thread):
    """Listens to a host's nftables: when each of a chain's rules came, and what it leads to."""

    def __init__(self, host):
        super().__init__(daemon=True)
        words = host.inside("stdbuf", "-oL", "nft", "monitor")
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = []
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.lines.append((now(), line))

    def left(self, vip, since):
        """When the chain of `vip` was first made anew after `since`."""
        return next((at for at, line in list(self.lines) if at > since and "vip4_" + vip in line), None)


class Bench:
    def __init__(self, options):
        self.options = options
        self.lab = Lab(options.flok, options.image)
        self.swarm = Swarm(self.lab)

    def run(self):
        first = self.swarm.init()
        for _ in range(2):
            self.swarm.join(first, "manager")
        file = os.path.join(self.lab.dir, "s.yml")
        with open(file, "w") as out:
            out.write(STACK)
        first.cli("stack", "deploy", "--detach", "-c", file, "s")
        self.settled()
        results = {"machine": machine(self.options.flok), "load": os.getloadavg()}
        self.chains = {host: Chains(host) for host in self.lab.hosts}
        time.sleep(1)
        for kind, count, one in (("stop", self.options.stops, self.stop), ("sick", self.options.sick, self.sick),
                                 ("suspect", self.options.suspects, self.suspect)):
            found = {"name": [], "vip": []}
            for turn in range(count):
                for what, seconds in one(turn).items():
                    found[what] += seconds
                    say("%s %d, %s: %s ms" % (kind, turn, what, ", ".join("%.0f" % (s * 1000) for s in seconds)))
                self.settled()
            results[kind] = {what: dict(spread([s * 1000 for s in seconds]), within_200=sum(s <= 0.2 for s in seconds))
                             for what, seconds in found.items()}
        return results

    def tasks(self, service):
        return [task for task in self.lab.hosts[0].api().tasks(service=["s_" + service]) if running(task)]

    def settled(self):
        """Waits for three tasks and as many that ask, all of whose resolvers know the three; looks for the addresses."""
        def look():
            web, clients = self.tasks("web"), self.tasks("client")
            health = set(self.health(self.lab.hosts[0].api()).values())
            if (len(web), len(clients), health) != (3, 3, {"up"}):
                return None
            homes = {node["ID"]: index for index, node in self.swarm.nodes(self.lab.hosts[0]).items()}
            hosts = {host.index: host for host in self.lab.hosts}
            self.asking = {}
            for task in clients:
                host = hosts[homes[task["NodeID"]]]
                path = "/proc/%d/root%s/data/network/%s.netns" % (host.pid, host.dir, task["ID"])
                self.asking[host] = socket_in(path)
            self.endpoints = {hosts[homes[task["NodeID"]]]: self.address(task) for task in web}
            known = [set(look_up(asking, "tasks.s_web")) for asking in self.asking.values()]
            self.vip = look_up(self.asking[self.lab.hosts[0]], "s_web")[0]
            return all(names == set(self.endpoints.values()) for names in known)

        def looked():
            try:
                return look()
            except (OSError, IndexError, KeyError):
                return None
        try:
            wait_for("three tasks that are known everywhere", 90, looked, 0.1)
        except RuntimeError:
            self.tell_all()
            raise
        time.sleep(0.5)

    def tell_all(self):
        """What is known of tasks and names, for who looks for what is missing."""
        say(self.health(self.lab.hosts[0].api()))
        for task in self.lab.hosts[0].api().tasks():
            say(task["ID"], task["NodeID"], task["DesiredState"], json.dumps(task["Status"])[:300])
        for host, asking in self.asking.items():
            say("n%d" % host.index, look_up(asking, "tasks.s_web"))

    @staticmethod
    def address(task):
        """On its stack's network."""
        networks = [at for at in task["NetworksAttachments"] if not at["Network"]["Spec"].get("Ingress")]
        return networks[0]["Addresses"][0].split("/")[0]

    def forgotten(self, hosts, names, since, begun=None):
        """Seconds from `since` until the names and the virtual address of each host lack an endpoint, which may be before
        it, but not before `begun`."""
        begun = begun or since

        def look():
            return all(names[host].gone and self.chains[host].left(self.vip, begun) for host in hosts)
        try:
            wait_for("an endpoint to be forgotten", WITHIN, look)
        except RuntimeError:
            for host in hosts:
                say("n%d" % host.index, self.health(host.api()), names[host].gone and names[host].gone - since,
                    self.chains[host].left(self.vip, begun), look_up(self.asking[host], "tasks.s_web"),
                    "monitor: %s" % self.chains[host].process.poll(), run(*host.inside(
                        "nft", "list", "chain", "inet", "flok", "vip4_" + self.vip), check=False))
            raise
        finally:
            for name in names.values():
                name.ended = True
        return {"name": [names[host].gone - since for host in hosts],
                "vip": [self.chains[host].left(self.vip, begun) - since for host in hosts]}

    def watch(self, hosts):
        names = {host: Names(self.asking[host], self.endpoints.values()) for host in hosts}
        time.sleep(0.1)
        return names

    def stop(self, turn):
        hosts = self.lab.hosts
        names = self.watch(hosts)
        since = self.scale(hosts[turn % 3], 2)
        found = self.forgotten(hosts, names, since)
        self.scale(hosts[turn % 3], 3)
        return found

    @staticmethod
    def scale(host, replicas):
        """When the request was sent."""
        service = next(one for one in host.call("GET", "/services")[1] if one["Spec"]["Name"] == "s_web")
        service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
        path = "/services/%s/update?version=%d" % (service["ID"], service["Version"]["Index"])
        since = now()
        status, answer = host.call("POST", path, service["Spec"])
        if status != 200:
            raise RuntimeError("scaling: %s" % answer)
        return since

    def sick(self, turn):
        hosts = self.lab.hosts
        pid = next(pid for pid, line in hosts[turn % 3].processes() if line[:2] == WEB)
        names = self.watch(hosts)
        asking = self.swarm.leader(hosts[0]).api()
        begun = now()
        with open("/proc/%d/root/sick" % pid, "w"):
            pass
        since = wait_for("a task to be known as sick", WITHIN, lambda: self.is_sick(asking) and now(), ASK_EVERY)
        return self.forgotten(hosts, names, since, begun)

    @staticmethod
    def is_sick(asking):
        asking.request("GET", "/flok/v1/services/s_web/explain")
        return any("its health check fails" in task["why"] for task in json.loads(asking.getresponse().read())["tasks"])

    def suspect(self, turn):
        leader = self.swarm.leader(self.lab.hosts[0])
        others = [host for host in self.lab.hosts if host is not leader]
        cut = others[turn % 2]
        living = [host for host in self.lab.hosts if host is not cut]
        names = self.watch(living)
        asking = leader.api()
        run("ip", "-n", self.lab.switch, "link", "set", cut.link, "down")
        since = wait_for("n%d to be suspected" % cut.index, WITHIN, lambda: self.is_suspect(asking, cut) and now(), ASK_EVERY)
        found = self.forgotten(living, names, since)
        run("ip", "-n", self.lab.switch, "link", "set", cut.link, "up")
        return found

    def is_suspect(self, asking, host):
        return self.health(asking)["n%d" % host.index] != "up"

    @staticmethod
    def health(asking):
        """Of each node, by its name, as a manager knows it."""
        asking.request("GET", "/flok/v1/status")
        return {node["name"]: node["health"] for node in json.loads(asking.getresponse().read())["nodes"]}

    def close(self):
        for chains in getattr(self, "chains", {}).values():
            chains.process.kill()
        self.lab.close()


def table(results):
    lines = ["ms from the clock's start       min   median      max   in 200 ms"]
    for kind in ("stop", "sick", "suspect"):
        for what, row in results[kind].items():
            lines.append("%-8s out of the %-10s %9.1f %8.1f %8.1f   %d of %d" % (
                kind, what + "s", row["min"], row["median"], row["max"], row["within_200"], row["n"]))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flok", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", REPO + "/target"), "release/flok"))
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--sick", type=int, default=10)
    parser.add_argument("--suspects", type=int, default=5)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.short:
        options.stops = options.sick = options.suspects = 2
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
