#!/usr/bin/env python3
"""Measures flok's network beside what the same kernel gives to bare namespaces, in one run on this machine.

  scripts/bench/network-bench.py              three rounds (about seven minutes)
  scripts/bench/network-bench.py --short      one quick pass, to see that it works

Paths, one after another in each round, so that what else the machine does meets all of them:
  direct      two namespaces on one veth pair
  routed      the two, and a namespace between them that routes
  dnat        the same, to an address that the one between translates (nftables)
  routed2     two hosts on a bridge, each routing for a namespace behind it
  vxlan2      the same, the hosts' packets in VXLAN
  dnat2       vxlan2, to an address that the first host translates
  task        flok: a task to another on the same host, by its address
  vip         the same, by the service's virtual IP
  task2, vip2 the same, to a task on another host
  port        flok: a published port, from outside, of the node that the task is on
  port2       the same, of another node
Each: Gbit/s of one TCP connection (iperf3), requests a second on 16 connections that stay open, and on a new connection
each (wrk, to an nginx of one worker process). CPU is that of all load generators, servers, and the kernel's work in their
names, which for packets between namespaces is nearly all; the kernel's own threads that take over under load (ksoftirqd)
are added for the whole machine. Ratios are made within a round, and then the median is taken.

The servers run in the tasks' network namespaces, not as their processes: it is the network that is measured. Needs root,
cgroup v1 with cpuacct, and, beside what flok-bench.py needs, the Debian packages iperf3, wrk and nginx-light. A table goes
to stderr, JSON to stdout.
"""

import argparse
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lab import CPUACCT, SUBNET, Lab, run, wait_for  # noqa: E402
from measure import busy, now, spread  # noqa: E402
from report import machine  # noqa: E402
from swarm import IMAGE, Swarm  # noqa: E402

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HTTP, IPERF = 80, 5201
VIP = "10.77.9.9"
# What each path is compared with.
BARE = {"routed": "direct", "dnat": "routed", "vxlan2": "routed2", "dnat2": "vxlan2", "task": "routed", "vip": "routed",
        "task2": "routed2", "vip2": "routed2", "port": "routed", "port2": "routed2"}
METRICS = ["gbit_s", "keep_alive", "connections"]
NGINX = """daemon off; master_process off; pid %(dir)s/pid; error_log %(dir)s/error.log;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p; fastcgi_temp_path %(dir)s/f;
  uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s;
  server { listen 80 backlog=4096; location / { return 200 "served\\n"; } }
}
"""


def say(*words):
    print("[%6.1f]" % (now() - START), *words, file=sys.stderr, flush=True)


START = now()


def ksoftirqd():
    """CPU seconds of the kernel's threads that handle packets which nobody's context did."""
    total = 0
    for path in KSOFTIRQD:
        with open(path) as file:
            total += int(file.read().split()[0])
    return total / 1e9


def threads_named(prefix):
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            with open(path) as file:
                if file.read().startswith(prefix):
                    yield os.path.dirname(path) + "/schedstat"
        except OSError:
            pass


KSOFTIRQD = list(threads_named("ksoftirqd/"))


class Path:
    """From where to where: namespaces as nsenter takes them, and the address and ports that are asked."""

    def __init__(self, client, address, http=HTTP, iperf=IPERF):
        self.client, self.address, self.http, self.iperf = client, address, http, iperf


class Bench:
    def __init__(self, options):
        self.options = options
        self.lab = Lab(options.flok, options.image)
        self.cgroup = os.path.join(CPUACCT, self.lab.name, "load")
        os.makedirs(self.cgroup)
        self.namespaces, self.servers, self.paths = [], [], {}
        self.seconds = 1 if options.short else options.seconds

    # ---- namespaces and servers -------------------------------------------------------------------------------------

    def namespace(self, name):
        full = "%s-%s" % (self.lab.name, name)
        run("ip", "netns", "add", full)
        self.namespaces.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        run("ip", "netns", "exec", full, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        return full

    def wire(self, one, other, address, its):
        """A veth pair, named after the namespace at its other end."""
        ends = ["to-" + end.rsplit("-", 1)[1] for end in (other, one)]
        run("ip", "link", "add", ends[0], "netns", one, "type", "veth", "peer", "name", ends[1], "netns", other)
        for end, where, own in zip(ends, (one, other), (address, its)):
            run("ip", "-n", where, "addr", "add", own, "dev", end)
            run("ip", "-n", where, "link", "set", end, "up")

    def enter(self, words):
        def into():
            with open(self.cgroup + "/cgroup.procs", "w") as procs:
                procs.write("0")
        return dict(args=[str(word) for word in words], preexec_fn=into)

    def serve(self, inside):
        place = os.path.join(self.lab.dir, "s%d" % len(self.servers))
        os.makedirs(place)
        with open(place + "/nginx.conf", "w") as conf:
            conf.write(NGINX % {"dir": place})
        for words in (["nginx", "-p", place, "-e", place + "/error.log", "-c", place + "/nginx.conf"], ["iperf3", "-s", "-p", IPERF]):
            self.servers.append(subprocess.Popen(**self.enter(inside + words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def bare(self):
        """The namespaces that know nothing of flok."""
        at = lambda name: ["nsenter", "--net=/run/netns/" + name]
        c, s, r = (self.namespace(name) for name in "csr")
        self.wire(c, s, "10.77.0.1/24", "10.77.0.2/24")
        self.wire(c, r, "10.77.1.1/24", "10.77.1.254/24")
        self.wire(s, r, "10.77.2.1/24", "10.77.2.254/24")
        run("ip", "-n", c, "route", "add", "10.77.2.0/24", "via", "10.77.1.254")
        run("ip", "-n", s, "route", "add", "10.77.1.0/24", "via", "10.77.2.254")
        # A router of its own translates: connection tracking is not for the path without.
        t = self.namespace("t")
        self.wire(c, t, "10.77.3.1/24", "10.77.3.254/24")
        self.wire(s, t, "10.77.4.1/24", "10.77.4.254/24")
        run("ip", "-n", c, "route", "add", VIP, "via", "10.77.3.254")
        run("ip", "-n", s, "route", "add", "10.77.3.0/24", "via", "10.77.4.254")
        self.translate(t, "10.77.4.1")
        self.serve(at(s))
        self.paths.update(direct=Path(at(c), "10.77.0.2"), routed=Path(at(c), "10.77.2.1"), dnat=Path(at(c), VIP))
        for name, vxlan, dnat in (("routed2", False, False), ("vxlan2", True, False), ("dnat2", True, True)):
            self.two_hosts(name, vxlan, dnat)

    def two_hosts(self, name, vxlan, dnat):
        number = {"routed2": 10, "vxlan2": 20, "dnat2": 30}[name]
        c, a, b, s = (self.namespace("%s%d" % (letter, number)) for letter in "cabs")
        self.wire(c, a, "10.77.%d.1/24" % number, "10.77.%d.254/24" % number)
        self.wire(s, b, "10.77.%d.1/24" % (number + 1), "10.77.%d.254/24" % (number + 1))
        for host, octet in ((a, number + 100), (b, number + 101)):
            link = "to-" + host.rsplit("-", 1)[1]
            run("ip", "link", "add", link, "netns", self.lab.switch, "type", "veth", "peer", "name", "eth0", "netns", host)
            run("ip", "-n", self.lab.switch, "link", "set", link, "master", "br0", "up")
            run("ip", "-n", host, "addr", "add", "%s.%d/24" % (SUBNET, octet), "dev", "eth0")
            run("ip", "-n", host, "link", "set", "eth0", "up")
        mtu = []
        for host, own, other, net in ((a, number + 100, number + 101, number + 1), (b, number + 101, number + 100, number)):
            device, via = "eth0", "%s.%d" % (SUBNET, other)
            if vxlan:
                run("ip", "-n", host, "link", "add", "vx", "type", "vxlan", "id", 7, "dstport", 4790, "local", "%s.%d" % (SUBNET, own),
                    "remote", via, "dev", "eth0", "nolearning")
                run("ip", "-n", host, "addr", "add", "10.78.%d.%d/24" % (number, own), "dev", "vx")
                run("ip", "-n", host, "link", "set", "vx", "mtu", 1450, "up")
                device, via, mtu = "vx", "10.78.%d.%d" % (number, other), ["mtu", 1450]
            run("ip", "-n", host, "route", "add", "10.77.%d.0/24" % net, "via", via, "dev", device)
        run("ip", "-n", s, "route", "add", "default", "via", "10.77.%d.254" % (number + 1), *mtu)
        run("ip", "-n", c, "route", "add", "default", "via", "10.77.%d.254" % number, *mtu)
        if dnat:
            self.translate(a, "10.77.%d.1" % (number + 1))
        inside = ["nsenter", "--net=/run/netns/" + s]
        self.serve(inside)
        self.paths[name] = Path(["nsenter", "--net=/run/netns/" + c], VIP if dnat else "10.77.%d.1" % (number + 1))

    def translate(self, router, to):
        run("ip", "netns", "exec", router, "nft",
            "table ip nat { chain pre { type nat hook prerouting priority -100; ip daddr %s dnat to %s; }; }" % (VIP, to))

    def flok(self):
        """Two hosts: a client and the near task on the first, the far one, which is published, on the second."""
        swarm = Swarm(self.lab)
        first = swarm.init()
        second = swarm.join(first, "worker")
        first.cli("network", "create", "bench")
        at = {}
        for name, host, ports in (("client", first, []), ("near", first, []), ("far", second, [(8080, HTTP), (8081, IPERF)])):
            at[name] = self.task(first, name, host, len(at), ports)
        for name in ("near", "far"):
            self.serve(at[name][0])
            suffix = "2" if name == "far" else ""
            self.paths["task" + suffix] = Path(at["client"][0], at[name][1])
            self.paths["vip" + suffix] = Path(at["client"][0], at[name][2])
        outside = self.namespace("o")
        run("ip", "link", "add", "to-o", "netns", self.lab.switch, "type", "veth", "peer", "name", "eth0", "netns", outside)
        run("ip", "-n", self.lab.switch, "link", "set", "to-o", "master", "br0", "up")
        run("ip", "-n", outside, "addr", "add", SUBNET + ".200/24", "dev", "eth0")
        run("ip", "-n", outside, "link", "set", "eth0", "up")
        inside = ["nsenter", "--net=/run/netns/" + outside]
        self.paths["port"] = Path(inside, second.addr, 8080, 8081)
        self.paths["port2"] = Path(inside, first.addr, 8080, 8081)

    def task(self, manager, name, host, number, ports):
        """(how to enter its network namespace, its address, its service's virtual IP)"""
        length = str(1000001 + number)
        spec = {"Name": name, "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {
            "ContainerSpec": {"Image": IMAGE, "Args": ["sleep", length], "StopSignal": "SIGKILL"},
            "Placement": {"Constraints": ["node.hostname==n%d" % host.index]}, "Networks": [{"Target": "bench"}]},
            "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress"}
                                       for published, target in ports]}}
        status, answer = manager.call("POST", "/services/create", spec)
        if status != 201:
            raise RuntimeError("creating %s: %s" % (name, answer))
        pid = wait_for("%s to run" % name, 60, lambda: next((pid for pid, line in host.processes() if line[:2] == ["sleep", length]), None))
        inside = ["nsenter", "--net=/proc/%d/ns/net" % pid]
        network = manager.call("GET", "/networks/bench")[1]
        vip = next(vip["Addr"].split("/")[0] for vip in manager.call("GET", "/services/" + name)[1]["Endpoint"]["VirtualIPs"]
                   if vip["NetworkID"] == network["Id"])
        subnet = network["IPAM"]["Config"][0]["Subnet"].rsplit(".", 1)[0] + "."
        found = re.findall(r"inet ([0-9.]+)", run(*inside, "ip", "-4", "-o", "addr"))
        return inside, next(address for address in found if address.startswith(subnet)), vip

    # ---- measuring --------------------------------------------------------------------------------------------------

    def load(self, path, words):
        """Output of a load generator, and the CPU seconds that it, the servers and the kernel for them took."""
        cpu, kernel, all_of_it, start = self.cpu(), ksoftirqd(), busy(), now()
        done = subprocess.run(**self.enter(path.client + words), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError("%s: %s" % (" ".join(map(str, words)), (done.stderr or done.stdout)[-300:]))
        own = self.cpu() - cpu + ksoftirqd() - kernel
        return done.stdout, own, max(0.0, busy() - all_of_it - own) / (now() - start)

    def cpu(self):
        with open(self.cgroup + "/cpuacct.usage") as usage:
            return int(usage.read()) / 1e9

    def gbit_s(self, path):
        out, cpu, others = self.load(path, ["iperf3", "-c", path.address, "-p", path.iperf, "-t", self.seconds, "-J"])
        end = json.loads(out)["end"]["sum_received"]
        return {"rate": end["bits_per_second"] / 1e9, "cpu": cpu / (end["bytes"] / 1e9), "others": others}

    def keep_alive(self, path):
        return self.wrk(path, [])

    def connections(self, path):
        return self.wrk(path, ["-H", "Connection: close"])

    def wrk(self, path, words):
        words = ["wrk", "-t1", "-c16", "-d%ds" % self.seconds] + words + ["http://%s:%d/" % (path.address, path.http)]
        out, cpu, others = self.load(path, words)
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        errors = re.search(r"Socket errors: (.*)", out)
        return {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), "cpu": cpu / max(requests, 1) * 1e6,
                "others": others, "errors": errors.group(1) if errors else None}

    def run(self):
        self.bare()
        self.flok()
        time.sleep(1)
        rounds, failed = [], []
        for number in range(1 if self.options.short else self.options.rounds):
            found = {}
            for name, path in self.paths.items():
                for metric in METRICS:
                    try:
                        found.setdefault(name, {})[metric] = getattr(self, metric)(path)
                    except (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                        failed.append("round %d, %s, %s: %s" % (number, name, metric, str(error)[:300]))
                say(name, {metric: "%.4g" % row["rate"] for metric, row in found.get(name, {}).items()})
            rounds.append(found)
        return {"machine": machine(self.options.flok), "load": os.getloadavg(), "seconds": self.seconds, "rounds": rounds,
                "failed": failed, "paths": {name: self.summary(name, rounds) for name in self.paths}}

    def summary(self, name, rounds):
        row = {}
        for metric in METRICS:
            pick = lambda of, key: [found.get(of, {}).get(metric, {}).get(key) for found in rounds]
            row[metric] = {key: spread(pick(name, key)) for key in ("rate", "cpu", "others")}
            row[metric]["errors"] = [error for error in pick(name, "errors") if error]
            for key in ("rate", "cpu"):
                pairs = zip(pick(name, key), pick(BARE.get(name), key))
                row[metric][key + "_ratio"] = spread([own / bare for own, bare in pairs if own and bare])
        return row

    def close(self):
        for server in self.servers:
            server.kill()
            server.wait()
        for name in self.namespaces:
            run("ip", "netns", "del", name, check=False)
        self.lab.close()


def table(results):
    lines = ["%-8s %-8s %s" % ("path", "against", "".join("%-46s" % metric for metric in METRICS)),
             "%-8s %-8s %s" % ("", "", "".join("%-46s" % "rate (ratio), CPU us a request or s a GB (ratio)" for _ in METRICS))]
    for name, row in results["paths"].items():
        cells = []
        for metric in METRICS:
            middle = lambda key: row[metric][key]["median"] if row[metric][key] else float("nan")
            cells.append("%-46s" % ("%.5g (%.2f), %.3g (%.2f)" % tuple(map(middle, ("rate", "rate_ratio", "cpu", "cpu_ratio")))))
        lines.append("%-8s %-8s %s" % (name, BARE.get(name, ""), "".join(cells)))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flok", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", REPO + "/target"), "release/flok"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", help="a file for the JSON as well")
    options = parser.parse_args()
    images = "/var/tmp/flok-bench-images"
    run(REPO + "/docker/images.sh", images, "busybox")
    options.image = images + "/busybox.tar"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(options)
    try:
        results = bench.run()
    finally:
        bench.close()
    print("\nmedians\n" + table(results), file=sys.stderr)
    text = json.dumps(results, indent=1)
    if options.out:
        with open(options.out, "w") as out:
            out.write(text + "\n")
    print(text)
    for failure in results["failed"]:
        print("failed: " + failure, file=sys.stderr)
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
