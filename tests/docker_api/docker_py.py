"""Docker's Python client against flok: each call does what it is for.

  docker_py.py IMAGE_ARCHIVE SOCKET=ADDRESS...

Of one daemon that is in no swarm, or of three: the second joins as a manager, the third as a worker. Ends with an error at
the first thing that is not as Docker has it; where all is, prints how many checks there were.
"""

import base64
import contextlib
import io
import sys
import tarfile
import threading
import time

import docker
from docker.types import (
    ConfigReference, DNSConfig, EndpointSpec, Healthcheck, IPAMConfig, IPAMPool, Resources, RestartPolicy,
    RollbackConfig, SecretReference, ServiceMode, UpdateConfig,
)

IMAGE = "flok/busybox:latest"
SLEEP = ["sleep", "1000"]
PATIENCE = 90
checks = 0


def check(holds, *told):
    global checks
    checks += 1
    if not holds:
        raise AssertionError(*told)


def same(found, wanted):
    check(found == wanted, "%r where %r is wanted" % (found, wanted))


@contextlib.contextmanager
def refused(status, words=""):
    wanted = status if isinstance(status, tuple) else (status,)
    try:
        yield
    except docker.errors.APIError as error:
        check(error.status_code in wanted and words in str(error.explanation), error.status_code, error.explanation)
    else:
        raise AssertionError("it was done, where %s %r is wanted" % (status, words))


def eventually(what, look, now=lambda: None):
    """Waits for a state; `look` gives what is wanted of it, or nothing. `now` tells how it is instead."""
    end = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("waited %s s for %s" % (PATIENCE, what), now())
        time.sleep(0.05)


def tasks_running(service, count):
    """The service's tasks, once so many run and no others are to run."""
    def look():
        wanted = service.tasks(filters={"desired-state": "running"})
        states = [task["Status"]["State"] for task in wanted]
        return wanted if states == ["running"] * count else None
    return eventually("%d running tasks of %s" % (count, service.name), look,
                      lambda: [(task["DesiredState"], task["Status"]) for task in service.tasks()])


def start(client, name, command=SLEEP, **options):
    service = client.services.create(IMAGE, command, name=name, **options)
    return service, tasks_running(service, 1)[0]


def container_of(client, task):
    return client.containers.get(task["Status"]["ContainerStatus"]["ContainerID"])


# The swarm

def speaks(client, base):
    same(client.ping(), True)
    version = client.version()
    same(client.api.api_version, version["ApiVersion"])
    check({"Version", "Os", "Arch", "KernelVersion", "Components"} <= set(version), version)
    oldest = docker.DockerClient(base_url=base, version=version["MinAPIVersion"])
    same(oldest.ping(), True)
    with refused(400, "client version 1.99 is too new"):
        docker.DockerClient(base_url=base, version="1.99").info()
    with refused(501, "does not serve"):
        client.api.search("redis")


def swarm_begins(client, address):
    same(client.info()["Swarm"]["LocalNodeState"], "inactive")
    with refused(503, "not a swarm manager"):
        client.nodes.list()
    with refused(501, "SnapshotInterval"):
        client.swarm.init(advertise_addr=address, snapshot_interval=5000)
    node = client.swarm.init(
        advertise_addr=address, default_addr_pool=["10.120.0.0/16"], subnet_size=26, data_path_port=4790,
        task_history_retention_limit=3, labels={"site": "test"}, snapshot_interval=10000, heartbeat_tick=1)
    swarm = client.info()["Swarm"]
    same((swarm["NodeID"], swarm["LocalNodeState"], swarm["ControlAvailable"]), (node, "active", True))
    same((swarm["Nodes"], swarm["Managers"], swarm["Cluster"]["ID"]), (1, 1, client.swarm.id))
    attrs = client.swarm.attrs
    same((attrs["DefaultAddrPool"], attrs["SubnetSize"], attrs["DataPathPort"]), (["10.120.0.0/16"], 26, 4790))
    same(attrs["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 3)
    same(attrs["Spec"]["Labels"], {"site": "test"})
    with refused(503, "already part of a swarm"):
        client.swarm.init(advertise_addr=address)


def swarm_is_changed(client):
    swarm = client.swarm
    swarm.reload()
    before, version = swarm.attrs["JoinTokens"], swarm.version
    same(swarm.update(rotate_worker_token=True, task_history_retention_limit=4, labels={"site": "b"}), True)
    swarm.reload()
    after = swarm.attrs
    check(after["JoinTokens"]["Worker"] != before["Worker"] and after["JoinTokens"]["Manager"] == before["Manager"])
    same((after["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], after["Spec"]["Labels"]), (4, {"site": "b"}))
    same(after["Spec"]["CAConfig"]["NodeCertExpiry"], 7776000000000000)
    check(swarm.version > version)
    with refused(500, "update out of sequence"):
        client.api.update_swarm(version, client.api.create_swarm_spec(labels={"site": "c"}))


def nodes_are_changed(client):
    node = client.nodes.list(filters={"name": "n1"})[0]
    same((node.attrs["Description"]["Hostname"], node.attrs["Status"]["State"]), ("n1", "ready"))
    same(node.attrs["ManagerStatus"]["Leader"], True)
    check(node.attrs["Description"]["Resources"]["MemoryBytes"] > 2**20)
    same(node.attrs["Description"]["Platform"]["OS"], "linux")
    same([found.id for found in client.nodes.list(filters={"role": "worker", "id": node.id})], [])
    spec = {"Availability": "active", "Role": "manager", "Labels": {"zone": "a"}, "Name": "first"}
    same(node.update(spec), True)
    with refused(500, "update out of sequence"):
        node.update(spec)
    node.reload()
    same((node.attrs["Spec"]["Labels"], node.attrs["Spec"]["Name"]), ({"zone": "a"}, "first"))
    same([found.id for found in client.nodes.list(filters={"node.label": "zone=a"})], [node.id])
    node.update({"Availability": "active", "Role": "manager"})
    with refused(400, "asleep"):
        client.api.update_node(node.id, node.version + 1, {"Availability": "asleep", "Role": "manager"})
    with refused(404, "nobody"):
        client.nodes.get("nobody")
    with refused(400):
        node.remove(force=True)


# What it stores

def secrets_and_configs_are_kept(client):
    secret = client.secrets.create(name="word", data=b"mellon\0", labels={"kind": "test"})
    same((secret.name, client.secrets.get(secret.id).attrs["Spec"]["Labels"]), ("word", {"kind": "test"}))
    check("Data" not in client.secrets.get("word").attrs["Spec"])
    same([found.id for found in client.secrets.list(filters={"name": "wor"})], [secret.id])
    same([found.id for found in client.secrets.list(filters={"label": "kind=test"})], [secret.id])
    same(client.secrets.list(filters={"label": "kind=other"}), [])
    with refused(409, "already exists"):
        client.secrets.create(name="word", data=b"other")
    with refused(400, "name"):
        client.secrets.create(name="not/a/name", data=b"x")

    config = client.configs.create(
        name="settings", data=b"node={{.Node.Hostname}}\n", labels={"kind": "test"}, templating={"name": "golang"})
    found = client.configs.get(config.id)
    same((found.name, found.attrs["Spec"]["Templating"]["Name"]), ("settings", "golang"))
    same(base64.b64decode(found.attrs["Spec"]["Data"]), b"node={{.Node.Hostname}}\n")
    same([found.id for found in client.configs.list(filters={"names": ["settings"]})], [config.id])
    with refused(404, "nothing"):
        client.configs.get("nothing")

    # Files of a task, as the references say.
    references = {
        "secrets": [SecretReference(secret.id, "word", filename="pass/word", uid="33", gid="33", mode=0o400)],
        "configs": [ConfigReference(config.id, "settings", filename="/etc/settings")],
    }
    service, task = start(client, "reads", **references)
    container = container_of(client, task)
    ask = ["sh", "-c", "stat -c '%u %g %a' /run/secrets/pass/word; cat /etc/settings /run/secrets/pass/word"]
    same(container.exec_run(ask).output, b"33 33 400\nnode=n1\nmellon\0")
    with refused(400, "in use by"):
        secret.remove()
    with refused(400, "in use by"):
        config.remove()
    service.remove()
    eventually("the secret to be free", lambda: removed(secret))
    config.remove()
    with refused(404, "word"):
        client.secrets.get("word")


def removed(what):
    try:
        what.remove()
    except docker.errors.APIError as error:
        check(error.status_code in (400, 409), error)
        return False
    return True


def networks_are_made(client):
    pool = IPAMPool(subnet="10.61.0.0/24", gateway="10.61.0.9", iprange="10.61.0.128/25")
    network = client.networks.create(
        "given", driver="overlay", ipam=IPAMConfig(pool_configs=[pool]), attachable=True, internal=True,
        labels={"tier": "data"}, options={"com.docker.network.driver.mtu": "1400"})
    network.reload()
    attrs = network.attrs
    same((attrs["Driver"], attrs["Scope"], attrs["Internal"], attrs["Attachable"]), ("overlay", "swarm", True, True))
    same((attrs["Labels"], attrs["Options"]["com.docker.network.driver.mtu"]), ({"tier": "data"}, "1400"))
    config = attrs["IPAM"]["Config"][0]
    same((config["Subnet"], config["Gateway"], config["IPRange"]), ("10.61.0.0/24", "10.61.0.9", "10.61.0.128/25"))
    same([found.id for found in client.networks.list(names=["given"])], [network.id])
    same([found.id for found in client.networks.list(ids=[network.id], greedy=True)], [network.id])
    same([found.id for found in client.networks.list(filters={"label": "tier=data", "driver": "overlay"})], [network.id])
    with refused(409, "already exists"):
        client.networks.create("given", driver="overlay")
    service, task = start(client, "joined", networks=["given"])
    place = task["NetworksAttachments"][0]
    same((place["Network"]["ID"], place["Addresses"][0].rsplit(".", 1)[0]), (network.id, "10.61.0"))
    service.reload()
    addresses = service.attrs["Endpoint"]["VirtualIPs"]
    check(any(one["NetworkID"] == network.id and one["Addr"].startswith("10.61.0.") for one in addresses), addresses)
    with refused(400, "in use"):
        network.remove()
    service.remove()
    eventually("the network to be free", lambda: removed(network))
    with refused(404, "given"):
        client.networks.get("given")
    client.networks.create("unused", driver="overlay")
    same(client.networks.prune()["NetworksDeleted"], ["unused"])


def volumes_are_made(client):
    volume = client.volumes.create(name="kept", driver="local", labels={"kind": "test"})
    same((volume.name, volume.attrs["Driver"], volume.attrs["Labels"]), ("kept", "local", {"kind": "test"}))
    same([found.id for found in client.volumes.list(filters={"label": "kind=test"})], ["kept"])
    service, task = start(client, "mounts", mounts=["kept:/data", "kept:/same:ro"])
    container = container_of(client, task)
    same(container.exec_run(["sh", "-c", "echo more > /data/file; echo x > /same/other"]).exit_code, 1)
    same(container.exec_run(["cat", "/same/file"]).output, b"more\n")
    places = {mount["Destination"]: (mount["Name"], mount["RW"]) for mount in container.attrs["Mounts"]}
    same(places, {"/data": ("kept", True), "/same": ("kept", False)})
    usage = client.df()
    same([one["UsageData"]["RefCount"] for one in usage["Volumes"] if one["Name"] == "kept"], [1])
    check(usage["LayersSize"] > 0 and usage["Images"] and usage["Containers"])
    with refused(409, "in use"):
        volume.remove()
    service.remove()
    eventually("the volume to be free", lambda: removed(volume))
    with refused(404, "kept"):
        client.volumes.get("kept")
    unnamed = client.volumes.create()
    check(unnamed.name in client.volumes.prune()["VolumesDeleted"])


def images_are_held(client, archive):
    with open(archive, "rb") as file:
        loaded = client.images.load(file)
    check(any(IMAGE in image.tags for image in loaded), loaded)
    image = client.images.get(IMAGE)
    same((image.attrs["Os"], image.attrs["Config"]["Cmd"]), ("linux", ["sh"]))
    same(image.tag("mine/copy", tag="1"), True)
    same([set(found.tags) >= {"mine/copy:1", IMAGE} for found in client.images.list(name="mine/copy")], [True])
    same(client.images.get(image.id).id, image.id)
    client.images.remove("mine/copy:1")
    with refused(404, "mine/copy:1"):
        client.images.get("mine/copy:1")


# Services

def services_are_stored_as_asked(client):
    service = client.services.create(
        IMAGE, ["sleep", "1001"], name="whole", labels={"a": "b"}, container_labels={"c": "d"}, env=["MORE=1"],
        hostname="h-{{.Task.Slot}}", user="33", workdir="/tmp", stop_grace_period=2 * 10**9, stop_signal="SIGINT",
        constraints=["node.role == manager"], preferences=[("spread", "node.labels.zone")], maxreplicas=2,
        mode=ServiceMode("replicated", 1), resources=Resources(cpu_limit=10**8, mem_limit=2**26, mem_reservation=2**22),
        restart_policy=RestartPolicy(condition="on-failure", delay=10**9, max_attempts=3, window=10**10),
        update_config=UpdateConfig(parallelism=2, delay=10**9, failure_action="rollback", monitor=10**9,
                                   max_failure_ratio=0.5, order="start-first"),
        rollback_config=RollbackConfig(parallelism=1, order="stop-first", failure_action="continue"),
        endpoint_spec=EndpointSpec(mode="vip", ports={30080: (80, "tcp", "host"), 30081: 81}),
        healthcheck=Healthcheck(test=["CMD", "true"], interval=10**9, retries=2), hosts={"db": "10.1.2.3"},
        dns_config=DNSConfig(nameservers=["10.9.9.9"], search=["example.org"]), read_only=True,
        cap_add=["NET_ADMIN"], cap_drop=["CHOWN"], sysctls={"net.ipv4.ip_default_ttl": "60"}, log_driver="json-file",
        log_driver_options={"max-size": "1m"}, groups=["33"])
    spec = client.services.get(service.id, insert_defaults=False).attrs["Spec"]
    same((spec["Name"], spec["Labels"], spec["Mode"]), ("whole", {"a": "b"}, {"Replicated": {"Replicas": 1}}))
    template = spec["TaskTemplate"]
    container = template["ContainerSpec"]
    for key, value in {
        "Image": IMAGE, "Command": ["sleep", "1001"], "Labels": {"c": "d"}, "Env": ["MORE=1"], "Hostname": "h-{{.Task.Slot}}",
        "User": "33", "Dir": "/tmp", "StopGracePeriod": 2 * 10**9, "StopSignal": "SIGINT", "Hosts": ["10.1.2.3 db"],
        "ReadOnly": True, "CapabilityAdd": ["NET_ADMIN"], "CapabilityDrop": ["CHOWN"],
        "Sysctls": {"net.ipv4.ip_default_ttl": "60"}, "Groups": ["33"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Retries": 2},
    }.items():
        check(container.get(key) == value, key, container.get(key))
    same((container["DNSConfig"]["Nameservers"], container["DNSConfig"]["Search"]), (["10.9.9.9"], ["example.org"]))
    same(template["Placement"]["Constraints"], ["node.role == manager"])
    same(template["Placement"]["Preferences"], [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}])
    same(template["Placement"]["MaxReplicas"], 2)
    same(template["Resources"]["Limits"], {"NanoCPUs": 10**8, "MemoryBytes": 2**26})
    same(template["Resources"]["Reservations"], {"MemoryBytes": 2**22})
    same(template["RestartPolicy"],
         {"Condition": "on-failure", "Delay": 10**9, "MaxAttempts": 3, "Window": 10**10})
    same(template["LogDriver"], {"Name": "json-file", "Options": {"max-size": "1m"}})
    update = spec["UpdateConfig"]
    same((update["Parallelism"], update["Delay"], update["FailureAction"], update["Monitor"], update["MaxFailureRatio"],
          update["Order"]), (2, 10**9, "rollback", 10**9, 0.5, "start-first"))
    same((spec["RollbackConfig"]["FailureAction"], spec["RollbackConfig"]["Order"]), ("continue", "stop-first"))
    ports = {port["PublishedPort"]: (port["TargetPort"], port["Protocol"], port["PublishMode"])
             for port in spec["EndpointSpec"]["Ports"]}
    same(ports, {30080: (80, "tcp", "host"), 30081: (81, "tcp", "ingress")})

    # It is what runs.
    task = tasks_running(service, 1)[0]
    inside = container_of(client, task)
    same(inside.exec_run(["sh", "-c", "hostname; id -u; pwd; echo $MORE"]).output, b"h-1\n33\n/tmp\n1\n")
    same((inside.labels["c"], inside.labels["com.docker.swarm.service.name"]), ("d", "whole"))
    same(inside.attrs["HostConfig"]["Memory"], 2**26)
    same(client.api.inspect_task(task["ID"])["ServiceID"], service.id)
    same([one["ID"] for one in client.api.tasks(filters={"service": "whole", "node": task["NodeID"]})], [task["ID"]])

    # Lists and their filters.
    other = client.services.create(IMAGE, SLEEP, name="everywhere", mode="global", labels={"a": "c"})
    tasks_running(other, 1)
    names = lambda **filters: sorted(found.name for found in client.services.list(filters=filters))  # noqa: E731
    same((names(mode="global"), names(label="a=b"), names(name="who"), names(id=other.id)),
         (["everywhere"], ["whole"], ["whole"], ["everywhere"]))
    with refused(400, "colour"):
        client.services.list(filters={"colour": "red"})
    status = {found.name: found.attrs["ServiceStatus"] for found in client.services.list(status=True)}
    same((status["whole"]["RunningTasks"], status["everywhere"]["DesiredTasks"]), (1, 1))
    check("ServiceStatus" not in client.services.list()[0].attrs)
    with refused(409, "whole"):
        client.services.create(IMAGE, SLEEP, name="whole")
    with refused(404, "nothing"):
        client.services.get("nothing")
    for wrong, words in [({"constraints": ["node.colour == red"]}, "node.colour"), ({"networks": ["nowhere"]}, "nowhere"),
                         ({"name": "-bad"}, "name"), ({"hostname": "{{.Nobody}}"}, "Nobody")]:
        with refused((400, 404), words):
            client.services.create(IMAGE, SLEEP, **wrong)
    other.remove()
    service.remove()


def services_are_changed(client):
    service, first = start(client, "moves", mode=ServiceMode("replicated", 1), labels={"a": "b"},
                           update_config=UpdateConfig(parallelism=0, monitor=10**8), stop_grace_period=0)
    check("Warnings" in service.scale(3))
    tasks_running(service, 3)
    service.reload()
    same(service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"], 3)
    same(service.attrs["Spec"]["Labels"], {"a": "b"})
    stale = service.version
    service.update(labels={"a": "c"}, env=["MORE=1"], stop_grace_period=0)
    with refused(500, "update out of sequence"):
        client.api.update_service(service.id, stale, name="moves", fetch_current_spec=True)
    def updated():
        service.reload()
        return service.attrs.get("UpdateStatus", {}).get("State") == "completed"
    eventually("the update to be completed", updated)
    for task in tasks_running(service, 3):
        same(task["Spec"]["ContainerSpec"]["Env"], ["MORE=1"])
    previous = service.attrs["PreviousSpec"]
    check("Env" not in previous["TaskTemplate"]["ContainerSpec"], previous)
    before = {task["ID"] for task in tasks_running(service, 3)}
    service.force_update()
    eventually("other tasks", lambda: not before & {task["ID"] for task in tasks_running(service, 3)})
    service.reload()
    same(service.attrs["Spec"]["TaskTemplate"]["ForceUpdate"], 1)
    service.remove()
    with refused(404, service.id):
        service.reload()
    with refused(404, "moves"):
        client.services.get("moves")


def jobs_complete(client):
    job = client.services.create(IMAGE, ["true"], name="job", mode=ServiceMode("replicated-job", 3, concurrency=2),
                                 restart_policy=RestartPolicy(condition="none"))
    def done():
        states = [task["Status"]["State"] for task in job.tasks()]
        return states == ["complete"] * 3
    eventually("three completions", done)
    same(sorted(task["Slot"] for task in job.tasks()), [0, 1, 2])
    check(all(task["JobIteration"]["Index"] >= 0 for task in job.tasks()))
    found = client.services.list(filters={"mode": "replicated-job"}, status=True)[0]
    same(found.attrs["ServiceStatus"]["CompletedTasks"], 3)
    check("JobStatus" in found.attrs)
    same(found.attrs["Spec"]["Mode"]["ReplicatedJob"], {"MaxConcurrent": 2, "TotalCompletions": 3})
    job.remove()
    everywhere = client.services.create(IMAGE, ["true"], name="job", mode=ServiceMode("global-job"))
    eventually("a completion", lambda: [task["Status"]["State"] for task in everywhere.tasks()] == ["complete"])
    everywhere.remove()


def services_fail_and_say_so(client):
    # As this client sends it, no attempts and no window are no limit.
    service = client.services.create(IMAGE, ["sh", "-c", "exit 3"], name="fails",
                                     restart_policy=RestartPolicy(condition="any", delay=0, max_attempts=0, window=0))
    failed = lambda: [task for task in service.tasks() if task["Status"]["State"] == "failed"]  # noqa: E731
    eventually("two failures", lambda: len(failed()) >= 2)
    status = failed()[0]["Status"]
    same((status["ContainerStatus"]["ExitCode"], status["Err"]), (3, "task: non-zero exit (3)"))
    service.remove()
    service = client.services.create(IMAGE, SLEEP, name="homeless", constraints=["node.hostname == nowhere"])
    def told():
        return [task["Status"].get("Err") for task in service.tasks() if task["Status"]["State"] == "pending"]
    words = eventually("a reason", lambda: [one for one in told() if one])[0]
    check("no suitable node" in words and "constraint" in words, words)
    service.remove()


def logs_are_told(client):
    service, task = start(client, "talks", ["sh", "-c", "echo one; echo oops >&2; echo two; exec sleep 1000"])
    read = lambda **options: b"".join(service.logs(**options))  # noqa: E731
    eventually("three lines", lambda: len(read(stdout=True, stderr=True).splitlines()) == 3)
    same((read(stdout=True), read(stderr=True)), (b"one\ntwo\n", b"oops\n"))
    same(len(read(stdout=True, stderr=True, tail=1).splitlines()), 1)
    labels = read(stdout=True, details=True).split()[0].decode()
    same(dict(pair.split("=") for pair in labels.split(",")), {
        "com.docker.swarm.node.id": task["NodeID"], "com.docker.swarm.service.id": service.id,
        "com.docker.swarm.task.id": task["ID"]})
    stamp = read(stdout=True, timestamps=True).split()[0]
    check(stamp.endswith(b"Z") and b"T" in stamp, stamp)
    container = container_of(client, task)
    same((container.logs(stderr=False), container.logs(stdout=False)), (b"one\ntwo\n", b"oops\n"))
    same((container.logs(tail=0), container.logs(until=1)), (b"", b""))
    following = container.logs(stream=True, follow=True, stderr=False)
    same((next(following), next(following)), (b"one\n", b"two\n"))
    container.exec_run(["sh", "-c", "echo three > /proc/1/fd/1"])
    same(next(following), b"three\n")
    following.close()
    service.remove()


# Containers

def commands_run_here(client):
    service, task = start(client, "inside")
    commands_run(client, task)
    same(container_of(client, task).image.tags, [IMAGE])
    service.remove()


def commands_run(client, task):
    container = container_of(client, task)
    same((container.status, container.name.split(".")[0]), ("running", "inside"))
    check(IMAGE in container.attrs["Config"]["Image"])
    result = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 42"], demux=True)
    same((result.exit_code, result.output), (42, (b"out\n", b"err\n")))
    result = container.exec_run("sh -c 'echo $A; pwd; id -u'", environment={"A": "b"}, workdir="/tmp", user="33")
    same(result.output, b"b\n/tmp\n33\n")
    same(container.exec_run(["tty"], tty=True).output.strip(), b"/dev/pts/0")
    check(b"".join(container.exec_run(["seq", "20000"], stream=True).output).endswith(b"19999\n20000\n"))
    detached = client.api.exec_create(container.id, ["sh", "-c", "touch /done"])
    client.api.exec_start(detached, detach=True)
    eventually("a command to end", lambda: client.api.exec_inspect(detached)["Running"] is False)
    found = client.api.exec_inspect(detached)
    same((found["ExitCode"], found["ContainerID"]), (0, container.id))
    same(container.exec_run(["test", "-e", "/done"]).exit_code, 0)
    # What is typed reaches it, and the end of it.
    typed = client.api.exec_create(container.id, ["wc", "-c"], stdin=True)
    stream = client.api.exec_start(typed, socket=True)
    stream._sock.sendall(b"x" * 5000)
    stream._sock.shutdown(1)
    said = b"".join(text for _, text in docker.utils.socket.frames_iter(stream, tty=False))
    same(said.strip(), b"5000")
    stream.close()
    with refused(404, "No such container"):
        client.containers.get("nothing")
    with refused(404):
        client.api.exec_inspect("nothing")

    check(any("sleep 1000" in process[-1] for process in container.top()["Processes"]))
    stats = container.stats(stream=False)
    check(stats["memory_stats"]["usage"] > 0 and stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0, stats)
    same(stats["pids_stats"]["current"], 1)
    streamed = container.stats(decode=True, stream=True)
    check(next(streamed)["read"] < next(streamed)["read"])
    streamed.close()

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("dir/file")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"deep"))
    same(container.put_archive("/tmp", packed.getvalue()), True)
    pieces, stat = container.get_archive("/tmp/dir")
    same((stat["name"], stat["mode"] & 2**31 != 0), ("dir", True))
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        same(archive.extractfile("dir/file").read(), b"deep")
    with refused(404, "/nowhere"):
        container.get_archive("/nowhere")


def containers_end(client):
    service, task = start(client, "ends", ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"],
                          restart_policy=RestartPolicy(condition="none"))
    container = container_of(client, task)
    same([found.id for found in client.containers.list(filters={"name": "ends"})], [container.id])
    told = []
    waiting = threading.Thread(target=lambda: told.append(client.api.wait(container.id)))
    waiting.start()
    container.kill(signal="SIGTERM")
    waiting.join(PATIENCE)
    same(told[0]["StatusCode"], 7)
    def ended():
        container.reload()
        return container.status == "exited" and container.attrs["State"]["ExitCode"] == 7
    eventually("the container to have exited", ended)
    same(client.containers.list(filters={"name": "ends"}), [])
    same([found.id for found in client.containers.list(all=True, filters={"name": "ends"})], [container.id])
    with refused(409, "is not running"):
        container.kill()
    same(container.wait()["StatusCode"], 7)
    service.remove()
    service, task = start(client, "stopped", restart_policy=RestartPolicy(condition="any", delay=0))
    container_of(client, task).stop(timeout=0)
    eventually("another task", lambda: tasks_running(service, 1)[0]["ID"] != task["ID"])
    with refused(501, "does not serve"):
        client.containers.create(IMAGE)
    service.remove()


def events_are_told(client):
    since = int(time.time()) - 1
    told, listening = [], client.events(decode=True)
    def listen():
        for event in listening:
            told.append(event)
    threading.Thread(target=listen, daemon=True).start()
    def heard(kind, action, **attributes):
        return any(event["Type"] == kind and event["Action"] == action
                   and all(event["Actor"]["Attributes"].get(key) == value for key, value in attributes.items())
                   for event in told)
    def ticked():
        config = client.configs.create(name="tick", data=b"x")
        config.remove()
        return heard("config", "create", name="tick")
    eventually("an event", ticked)
    service, task = start(client, "told", restart_policy=RestartPolicy(condition="none"))
    node = client.nodes.get(task["NodeID"])
    node.update({**node.attrs["Spec"], "Labels": {"seen": "yes"}})
    container_of(client, task).kill()
    service.remove()
    name = "told.1." + task["ID"]
    for kind, action, wanted in [
        ("service", "create", "told"), ("container", "create", name), ("container", "start", name),
        ("node", "update", node.attrs["Description"]["Hostname"]), ("service", "remove", "told"),
        ("container", "die", name), ("container", "destroy", name),
    ]:
        eventually("%s %s" % (kind, action), lambda: heard(kind, action, name=wanted), lambda: told[-20:])
    listening.close()
    local = next(event for event in told if event["Actor"]["Attributes"].get("name") == name)
    same((local["scope"], local["Actor"]["Attributes"]["com.docker.swarm.service.name"]), ("local", "told"))
    check(local["timeNano"] // 10**9 == local["time"] >= since)


def leaves(client):
    with refused(503, "force"):
        client.swarm.leave()
    same(client.swarm.leave(force=True), True)
    same(client.info()["Swarm"]["LocalNodeState"], "inactive")


# Three nodes

def members_join(clients, addresses):
    first, manager, worker = clients
    tokens = first.swarm.attrs["JoinTokens"]
    remote = addresses[0] + ":2377"
    with refused(400, "token"):
        worker.swarm.join([remote], "SWMTKN-1-nonsense")
    same(manager.swarm.join([remote], tokens["Manager"], advertise_addr=addresses[1]), True)
    same(worker.swarm.join([remote], tokens["Worker"], advertise_addr=addresses[2]), True)
    with refused(503, "already part of a swarm"):
        worker.swarm.join([remote], tokens["Worker"])
    def ready():
        states = {node.attrs["Description"]["Hostname"]: node.attrs["Status"]["State"] for node in manager.nodes.list()}
        return states == {"n1": "ready", "n2": "ready", "n3": "ready"}
    eventually("three nodes", ready)
    swarm = worker.info()["Swarm"]
    same((swarm["LocalNodeState"], swarm["ControlAvailable"], swarm["NodeAddr"]), ("active", False, addresses[2]))
    check({peer["Addr"] for peer in swarm["RemoteManagers"]} == {addresses[0] + ":2377", addresses[1] + ":2377"}, swarm)
    with refused(503, "not a swarm manager"):
        worker.services.list()
    same(len(first.nodes.list(filters={"role": "manager"})), 2)


def every_manager_does_the_same(clients, addresses):
    first, manager, worker = clients
    service = manager.services.create(IMAGE, ["sh", "-c", "hostname; exec sleep 1000"], name="inside", mode="global",
                                      hostname="{{.Node.Hostname}}")
    tasks_running(service, 3)
    hosts = {node.id: node.attrs["Description"]["Hostname"] for node in first.nodes.list()}
    for task in first.services.get("inside").tasks(filters={"desired-state": "running"}):
        for asked in (first, manager):
            found = container_of(asked, task).exec_run(["hostname"]).output.decode().strip()
            same(found, hosts[task["NodeID"]])
        if hosts[task["NodeID"]] == "n3":
            commands_run(manager, task)
            same(container_of(worker, task).exec_run(["hostname"]).output, b"n3\n")
            ids = [found.id for found in manager.containers.list(filters={"node": "n3"})]
            same(ids, [task["Status"]["ContainerStatus"]["ContainerID"]])
    def said():
        return sorted(b"".join(first.services.get("inside").logs(stdout=True)).split())
    eventually("a line of each", lambda: said() == [b"n1", b"n2", b"n3"])
    # What one manager has taken, the other shows at once.
    for count in range(5):
        made = first.configs.create(name="here%d" % count, data=b"x")
        same(manager.configs.get(made.id).name, "here%d" % count)
        manager.configs.get(made.id).remove()
        with refused(404):
            first.configs.get(made.id)

    node = manager.nodes.list(filters={"name": "n3"})[0]
    node.update({"Availability": "drain", "Role": "worker", "Labels": {"zone": "b"}})
    tasks_running(manager.services.get("inside"), 2)
    node = first.nodes.get(node.id)
    node.update({"Availability": "active", "Role": "worker", "Labels": {"zone": "b"}})
    tasks_running(service, 3)
    service.remove()


def members_leave(clients):
    first, _, worker = clients
    same(worker.swarm.leave(), True)
    node = first.nodes.list(filters={"name": "n3"})[0]
    def down():
        node.reload()
        return node.attrs["Status"]["State"] == "down"
    eventually("the node to be down", down)
    same(node.remove(), True)
    same(sorted(found.attrs["Description"]["Hostname"] for found in first.nodes.list()), ["n1", "n2"])


def main():
    archive, hosts = sys.argv[1], [host.split("=") for host in sys.argv[2:]]
    bases = ["unix://" + socket for socket, _ in hosts]
    clients, addresses = [docker.DockerClient(base_url=base) for base in bases], [address for _, address in hosts]
    first = clients[0]
    if len(hosts) == 1:
        speaks(first, bases[0])
    swarm_begins(first, addresses[0])
    for client in clients:
        images_are_held(client, archive)
    if len(hosts) == 3:
        members_join(clients, addresses)
        every_manager_does_the_same(clients, addresses)
        members_leave(clients)
    else:
        for part in (swarm_is_changed, nodes_are_changed, secrets_and_configs_are_kept, networks_are_made, volumes_are_made,
                     services_are_stored_as_asked, services_are_changed, jobs_complete, services_fail_and_say_so,
                     logs_are_told, commands_run_here, containers_end, events_are_told, leaves):
            part(first)
    print("%d checks" % checks)


if __name__ == "__main__":
    main()
