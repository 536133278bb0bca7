"""Each thing that a tenant's container must not be able to do is tried from inside one, on a real engine."""

import json
from dataclasses import replace

import aiodocker
import pytest

from fallow_provider.domain.run import RunKey
from fallow_provider.domain.workload import Container, ContainerKey
from fallow_provider.drivers.docker import MAX_PROCESSES
from fallow_provider.ports import DriverRefusedError
from tests.contract.drivers.conftest import IDS, DockerHouse
from tests.contract.drivers.test_docker import described

# Only the engine that gives leases networks; on the other containers share the host's by its owner's wish.
pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(180),
    pytest.mark.parametrize("docker_engine", ["own"], indirect=True),
]
# Each attempt that succeeds is named; "may" answers whether a call went through.
ATTEMPTS = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def may(call):
    try:
        return call() is not False
    except (OSError, PermissionError):
        return False
done = {
    "mount": may(lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0),
    "new user namespace": may(lambda: libc.unshare(0x10000000) == 0),
    "new network namespace": may(lambda: libc.unshare(0x40000000) == 0),
    "device file": may(lambda: os.mknod("disk", 0o600 | 0o60000, os.makedev(8, 0))),
    "raw socket": may(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()),
    "host name": may(lambda: socket.sethostname("evil")),
    "clock": may(lambda: __import__("time").clock_settime(0, 0)),
    "owner of a file": may(lambda: (open("x", "w").close(), os.chown("x", 12345, 12345))),
    "kernel's settings": may(lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/bin/x")),
    "kernel's keys": may(lambda: libc.syscall(248, b"user", b"a", b"b", 1, -3) > 0),
    "trace by ptrace of the first process": may(lambda: libc.ptrace(16, 1, 0, 0) == 0 and os.getpid() != 1 and os.getuid() == -1),
    "module": may(lambda: libc.syscall(175, 0, 0, b"") == 0),
    "reboot": may(lambda: libc.reboot(0xfee1dead) == 0),
}
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
facts = {name: status[name].strip() for name in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp", "Uid")}
print(json.dumps([[name for name, is_done in done.items() if is_done], facts]))
"""
THREADS = """
import json, threading
threading.stack_size(32768)
over, made = threading.Event(), 0
try:
    while made < 10_000:
        threading.Thread(target=over.wait, daemon=True).start()
        made += 1
except RuntimeError:
    pass
print(made, flush=True)
__import__("os")._exit(0)
"""
BUSY = """
import glob, time
end = time.process_time() + 0.6
while time.process_time() < end:
    pass
(file,) = glob.glob("/sys/fs/cgroup/cpu/cpu.stat") or glob.glob("/sys/fs/cgroup/cpu.stat")
print(dict(line.split() for line in open(file))["nr_throttled"])
"""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close(); print("reached")
except OSError as error:
    print("not reached", error)
"""


@pytest.fixture
def house(docker_house: DockerHouse) -> DockerHouse:
    """The docker driver with networks of its own."""
    return docker_house


async def output(house: DockerHouse, container: Container, source: str, *arguments: str) -> str:
    """What a program prints that runs in a container."""
    result = await house.driver.exec(container.key, ["python3", "-c", source, *arguments], 60)
    return result.output.strip()


async def rooted(house: DockerHouse) -> str:
    """An image like the demo's whose user is root."""
    engine = aiodocker.Docker(url=f"unix://{house.engine.socket}")
    try:
        made = await engine.containers.create({"Image": house.image, "Cmd": ["python3"]})
        await made.commit(repository="rooted", tag="1", changes=["USER 0:0"])
        await made.delete()
    finally:
        await engine.close()
    return "rooted:1"


async def address_of(house: DockerHouse, container: Container) -> str:
    """A container's address on its lease's network."""
    (network,) = (await described(house, container.key.name))["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def beside(container: Container, service: str) -> Container:
    """Another container of the same lease."""
    return replace(container, key=replace(container.key, service=service))


@pytest.mark.parametrize("user", ["nobody", "root"])
async def test_what_needs_a_privilege_fails(house: DockerHouse, user: str) -> None:
    """Goal: no capabilities, no new privileges, seccomp, also for root. Method: try what each of them forbids."""
    image = house.image if user == "nobody" else await rooted(house)
    container = replace(house.container("serve"), image=image)
    await house.driver.start(container)
    done, facts = json.loads(await output(house, container, ATTEMPTS))
    assert done == []
    assert {facts[name] for name in ("CapEff", "CapBnd", "CapPrm")} == {"0000000000000000"}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert facts["Uid"].split()[0] == ("65534" if user == "nobody" else "0")


async def test_processes_are_limited(house: DockerHouse) -> None:
    """Goal: no fork bomb reaches the machine. Method: make threads until the kernel refuses one."""
    container = replace(house.container("serve"), memory_bytes=1 << 30)
    await house.driver.start(container)
    made = int(await output(house, container, THREADS))
    assert 100 < made < MAX_PROCESSES


async def test_processor_time_is_limited(house: DockerHouse) -> None:
    """Goal: a tenant takes no more than it pays for. Method: a busy program in a tenth of a core is held back."""
    container = replace(house.container("serve"), cpu_milli=100)
    await house.driver.start(container)
    assert int(await output(house, container, BUSY)) > 0


async def test_a_root_that_is_read_only(house: DockerHouse) -> None:
    """Goal: where it is asked for nothing can be written. Method: root tries every folder of the image's root."""
    container = replace(house.container("serve"), image=await rooted(house), is_root_read_only=True)
    await house.driver.start(container)
    source = (
        "import os\nwritten = []\n"
        "for name in ['', *(n for n in os.listdir('/') if n not in ('proc', 'sys', 'dev') and os.path.isdir('/' + n))]:\n"
        "    try:\n        open(f'/{name}/x', 'w'); written.append(name)\n    except OSError:\n        pass\n"
        "print(written)"
    )
    assert await output(house, container, source) == "[]"


async def test_nothing_of_the_host_is_there(house: DockerHouse) -> None:
    """Goal: no mount, no namespace, no socket, no key of the host. Method: look from inside for the host's folders, the
    engine's socket, a file that stands for the agent's keys, the host's processes and interfaces.
    """
    key = house.engine.folder / "proof.key"
    key.write_text("secret of the agent", "utf-8")
    container = replace(house.container("serve"), mount_paths=("/var/run", "/data"))
    await house.driver.start(container)
    source = (
        "import json, os, stat, sys\nsockets = []\n"
        "for folder, inner, files in os.walk('/'):\n"
        "    inner[:] = [name for name in inner if folder != '/' or name not in ('proc', 'sys')]\n"
        "    sockets += [name for name in files if stat.S_ISSOCK(os.lstat(os.path.join(folder, name)).st_mode)]\n"
        "mounts = [l.split()[1] for l in open('/proc/mounts')]\n"
        "pids = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "print(json.dumps([sockets, os.path.exists(sys.argv[1]), mounts, len(pids), sorted(os.listdir('/sys/class/net')), os.listdir('/data')]))"
    )
    sockets, sees_key, mounts, processes, interfaces, data = json.loads(
        await output(house, container, source, str(key))
    )
    assert sockets == []
    assert not sees_key
    assert not [place for place in mounts if place.startswith((str(house.engine.folder), "/root", "/home", "/var/lib"))]
    assert processes == 2, "its own and the one that looks"
    assert interfaces == ["eth0", "lo"]
    assert data == []
    host = (await described(house, container.key.name))["HostConfig"]
    assert not host["Binds"]
    assert (host["PidMode"], host["UsernsMode"], host["UTSMode"], host["IpcMode"]) == ("", "", "", "private")


async def test_a_mount_over_the_root_is_refused(house: DockerHouse) -> None:
    """Goal: a clear answer to what cannot be. Method: a volume at /."""
    container = replace(house.container("serve"), mount_paths=("/",))
    with pytest.raises(DriverRefusedError) as refusal:
        await house.driver.start(container)
    assert refusal.value.reason.reason == "START_FAILED"


async def test_a_lease_is_reached_by_its_own_and_by_no_other(house: DockerHouse) -> None:
    """Goal: one lease cannot reach another's network. Method: connect by name and by address, within and across."""
    server = house.container("serve")
    friend, stranger = beside(server, "client"), house.container("serve")
    for container in (server, friend, stranger):
        await house.driver.start(container)
    address = await address_of(house, server)
    for host in ("web", "web-0", address):
        assert await output(house, friend, CONNECT, host, "8080") == "reached"
    assert (await output(house, stranger, CONNECT, address, "8080")).startswith("not reached")
    # The stranger's own service has the same name, and only that one is found by it.
    assert await output(house, stranger, "import socket; print(socket.gethostbyname('web'))") != address


async def test_another_lease_is_not_seen(house: DockerHouse) -> None:
    """Goal: no token, volume or log of another lease. Method: two leases with secrets and data; look from the second."""
    first = replace(house.container("serve"), environment={"TOKEN": "secret-of-the-first"}, mount_paths=("/data",))
    second = replace(house.container("serve"), image=await rooted(house), mount_paths=("/data",))
    second = replace(second, command=("python3", "-c", "import time; time.sleep(600)"))
    first = replace(first, image=second.image)
    for container in (first, second):
        await house.driver.start(container)
    await output(house, first, "open('/data/weights', 'w').write('of the first'); print('wrote')")
    source = (
        "import glob, json, os\nseen = []\n"
        "for name in glob.glob('/proc/[0-9]*/environ'):\n"
        "    seen.append('secret-of-the-first' in open(name, errors='replace').read())\n"
        "print(json.dumps([any(seen), os.listdir('/data')]))"
    )
    assert json.loads(await output(house, second, source)) == [False, []]
    volumes = [
        {mount["Name"] for mount in (await described(house, container.key.name))["Mounts"]}
        for container in (first, second)
    ]
    assert volumes[0].isdisjoint(volumes[1])


async def test_a_leases_network_goes_with_it(house: DockerHouse) -> None:
    """Goal: nothing is left of a lease. Method: two containers of one lease share a network; it goes with the last, and one
    that a dead agent left is removed by its next life, but not another agent's.
    """
    server = house.container("serve")
    for container in (server, beside(server, "client")):
        await house.driver.start(container)
    assert len(await networks(house)) == 1
    await house.driver.destroy(server.key)
    await house.driver.recover()
    assert len(await networks(house)) == 1, "its other container is there still"
    await house.stranger().recover()
    await house.driver.destroy(beside(server, "client").key)
    await house.stranger().recover()
    assert len(await networks(house)) == 1, "it is not the stranger's to remove"
    await house.reborn().recover()
    assert await networks(house) == []


async def test_more_leases_than_an_engine_has_networks(house: DockerHouse) -> None:
    """Goal: leases are not limited by the engine's own pools, which end at 31. Method: 34 networks held at once."""
    engine = aiodocker.Docker(url=f"unix://{house.engine.socket}")
    driver = house.opened[0]
    try:
        for _ in range(34):
            key = ContainerKey(f"leases/{IDS.new()}", RunKey(f"orders/{IDS.new()}", 0, 1), "web", 0)
            async with driver._networks.held(engine, key):
                pass
    finally:
        await engine.close()
    assert len(await networks(house)) == 34
    await house.driver.recover()
    assert await networks(house) == []


async def networks(house: DockerHouse) -> list[str]:
    """Names of the agent's networks."""
    engine = aiodocker.Docker(url=f"unix://{house.engine.socket}")
    try:
        return [
            str(item["Name"])
            for item in await engine.networks.list(filters={"label": [f"dev.fallow.agent={house.agent}"]})
        ]
    finally:
        await engine.close()
