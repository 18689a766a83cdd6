"""Runs in the sandbox: attempts to get out. Each is harmless where it succeeds, and then says so.

An attempt is a function that returns something true if it got out, and raises or returns nothing if it did not.
`GIVEN` stands before this text: what the test knows of the host.
"""

# ruff: noqa: F821, PLW0108, SIM105, SIM115

import ctypes
import mmap
import os
import socket
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)


def worked(result):
    """Whether a call of libc succeeded."""
    return result >= 0


def secret_in(path):
    return GIVEN["secret"] in open(path, errors="replace").read()


def writes(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")
    return True


def connects(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as one:
        one.settimeout(0.2)
        if kind == socket.SOCK_DGRAM:
            return one.sendto(b"x", address)
        one.connect(address)
        return True


def child(function):
    """Whether a process can be started that does something in the host's world."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(7 if function() else 0)
        except BaseException:
            os._exit(0)
    return os.waitpid(pid, 0)[1] >> 8 == 7


def signals(pid, number=0):
    os.kill(pid, number)
    return True


def descriptors():
    """Descriptors beyond the standard ones. The first attempt, before others leave some of their own."""
    for number in range(3, 60):
        try:
            os.fstat(number)
        except OSError:
            continue
        return True
    return False


def preload():
    sys.path.insert(0, GIVEN["folder"])
    return __import__("planted")


def raises_limit(name, value):
    import resource

    kind = getattr(resource, name)
    resource.setrlimit(kind, (value, value))
    return resource.getrlimit(kind)[0] == value


def syscall(*arguments):
    return worked(libc.syscall(*arguments))


def other_memory():
    here, there = ctypes.create_string_buffer(8), (ctypes.c_size_t * 2)(0x400000, 8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
    return worked(libc.process_vm_readv(GIVEN["parent"], local, 1, there, 1, 0))


def from_thread(function):
    found = []

    def run():
        try:
            found.append(function())
        except BaseException:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return any(found)


def grows(path):
    """Whether a file can grow beyond the bytes of all files."""
    with open(path, "wb") as file:
        for _ in range(48):
            file.write(bytes(1 << 20))
    return True


F, P = GIVEN["folder"], GIVEN["parent"]
ATTEMPTS = {
    "use the parent's descriptors": descriptors,
    # files of the host
    "read a file": lambda: secret_in(f"{F}/secret"),
    "read it through ..": lambda: secret_in(f"/usr/lib/../../{F}/secret"),
    "read it by descriptor": lambda: os.read(os.open(f"{F}/secret", os.O_RDONLY), 99),
    "open it as a path": lambda: os.read(
        os.open(f"/proc/self/fd/{os.open(f'{F}/secret', os.O_PATH)}", os.O_RDONLY), 9
    ),
    "map it": lambda: mmap.mmap(os.open(f"{F}/secret", os.O_RDONLY), 0, prot=mmap.PROT_READ)[:],
    "list a folder": lambda: os.listdir(F),
    "read accounts": lambda: open("/etc/passwd").read(),
    "read passwords": lambda: open("/etc/shadow").read(),
    "read the host's name": lambda: open("/etc/hostname").read(),
    "read keys": lambda: os.listdir("/root/.ssh"),
    "read the program of the parent": lambda: open(f"/proc/{P}/cmdline").read(),
    "read the parent's environment": lambda: secret_in(f"/proc/{P}/environ"),
    "read the parent's memory": lambda: open(f"/proc/{P}/mem", "rb").read(1),
    "list processes": lambda: os.listdir("/proc"),
    "read its own limits": lambda: open("/proc/self/limits").read(),
    "read the kernel's log": lambda: open("/dev/kmsg").read(1),
    "read the disk": lambda: open("/dev/vda", "rb").read(1),
    "read memory": lambda: open("/dev/mem", "rb").read(1),
    "open the terminal": lambda: open("/dev/tty").read(0) == "",
    "list the system": lambda: os.listdir("/sys"),
    "follow a symbolic link": lambda: (os.symlink(f"{F}/secret", "/tmp/link"), secret_in("/tmp/link"))[1],
    "link a file": lambda: os.link(f"{F}/secret", "/tmp/hard") or secret_in("/tmp/hard"),
    "write a file": lambda: writes(f"{F}/written"),
    "append to a file": lambda: writes(f"{F}/secret", "a"),
    "remove a file": lambda: os.remove(f"{F}/secret") or True,
    "rename a file": lambda: os.rename(f"{F}/secret", f"{F}/renamed") or True,
    "truncate a file": lambda: os.truncate(f"{F}/secret", 0) or True,
    "make a folder": lambda: os.mkdir(f"{F}/made") or True,
    "make a device": lambda: os.mknod("/tmp/device", 0o60666, os.makedev(254, 0)) or True,
    "make a pipe for the host": lambda: os.mkfifo(f"{F}/pipe") or True,
    "plant a module": lambda: writes(f"{F}/planted.py"),
    "plant a module among the libraries": lambda: writes(
        os.path.join(os.path.dirname(os.__file__), "planted.py")
    ),
    "change a library": lambda: writes(os.__file__, "a"),
    "plant a package": lambda: [writes(f"{path}/planted.pth") for path in sys.path if "packages" in path],
    "plant it where the program lies": lambda: writes(os.path.join(GIVEN["package"], "planted.py")),
    "import from the host": preload,
    "change the sandbox": lambda: writes(os.path.join(GIVEN["package"], "sandbox/confine.py"), "a"),
    "change permissions": lambda: os.chmod(f"{F}/secret", 0o600) or True,
    "change permissions by descriptor": lambda: os.fchmod(os.open(os.__file__, os.O_RDONLY), 0o644) or True,
    "change the owner": lambda: os.chown(f"{F}/secret", 1, 1) or True,
    "change the date": lambda: os.utime(f"{F}/secret", (1, 1)) or True,
    "change an attribute": lambda: os.setxattr(f"{F}/secret", "user.x", b"x") or True,
    "go out of the root": lambda: (os.chroot("/tmp"), os.chdir("../../../.."), secret_in(f".{F}/secret"))[2],
    "write more than the files may have": lambda: grows("/tmp/large"),
    # the network
    "connect to the host": lambda: connects(socket.AF_INET, ("127.0.0.1", GIVEN["port"])),
    "connect over IPv6": lambda: connects(socket.AF_INET6, ("::1", GIVEN["port"])),
    "send a datagram": lambda: (
        connects(socket.AF_INET, ("127.0.0.1", GIVEN["port"]), socket.SOCK_DGRAM) and None
    ),
    "connect to an abstract socket": lambda: connects(socket.AF_UNIX, GIVEN["abstract"]),
    "connect to a socket's file": lambda: connects(socket.AF_UNIX, f"{F}/socket"),
    "look a name up": lambda: socket.getaddrinfo("example.com", 80),
    "capture packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "listen for the host": lambda: socket.create_server(("0.0.0.0", GIVEN["free"])) and None,
    "ask the kernel about routes": lambda: socket.socket(16, socket.SOCK_RAW, 0) and None,
    "open a ring": lambda: syscall(425, 8, ctypes.create_string_buffer(200)) and None,
    # processes
    "signal the parent": lambda: signals(P),
    "signal the host's process 1 by number": lambda: os.getpid() != 2 and signals(1),
    "signal everybody": lambda: os.getpid() != 2 and signals(-1),
    "signal its group": lambda: os.getpid() != 2 and signals(-os.getpgid(0), 0) and None,
    "open the parent": lambda: os.pidfd_open(P),
    "trace the parent": lambda: worked(libc.ptrace(16, P, 0, 0)),
    "read the parent by call": other_memory,
    "slow the parent": lambda: os.setpriority(os.PRIO_PROCESS, P, 19) or True,
    "limit the parent": lambda: __import__("resource").prlimit(P, 7, (3, 3)),
    "bind the parent to a core": lambda: os.sched_setaffinity(P, {0}) or True,
    "read a file in a child": lambda: child(lambda: secret_in(f"{F}/secret")),
    "connect in a child": lambda: child(lambda: connects(socket.AF_INET, ("127.0.0.1", GIVEN["port"]))),
    "run a shell": lambda: (
        b"root" in __import__("subprocess").run(["/bin/sh", "-c", "id"], capture_output=True).stdout
    ),
    "run Python": lambda: __import__("subprocess").run([sys.executable or "python3", "-c", ""], check=True),
    "run what is there": lambda: os.execv("/usr/lib/ld-linux-x86-64.so.2", ["x"]),
    "use system()": lambda: os.system(f"echo x > {F}/shell") == 0,
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "read a file in a thread": lambda: from_thread(lambda: secret_in(f"{F}/secret")),
    "connect in a thread": lambda: from_thread(
        lambda: connects(socket.AF_INET, ("127.0.0.1", GIVEN["port"]))
    ),
    # rights
    "become root": lambda: os.setuid(0) or (os.geteuid() == 0 and secret_in(f"{F}/secret")),
    "take a group": lambda: os.setgroups([0]) or True,
    "mount": lambda: worked(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None)),
    "mount processes": lambda: worked(libc.mount(b"proc", b"/tmp", b"proc", 0, None)),
    "unmount": lambda: worked(libc.umount2(b"/usr/lib", 2)),
    "remount to write": lambda: worked(libc.mount(b"", b"/usr/lib", b"", 32 | 4096, None)),
    "enter a namespace": lambda: worked(libc.setns(os.open(f"/proc/{P}/ns/mnt", os.O_RDONLY), 0)),
    "name the host": lambda: worked(libc.sethostname(b"x", 1)),
    "set the clock": lambda: __import__("time").clock_settime(0, 0) or True,
    "raise the limit of memory": lambda: raises_limit("RLIMIT_AS", 1 << 40),
    "raise the limit of files": lambda: raises_limit("RLIMIT_FSIZE", 1 << 40),
    "raise the limit of processes": lambda: raises_limit("RLIMIT_NPROC", 1 << 20),
    "raise the limit of time": lambda: raises_limit("RLIMIT_CPU", 1 << 20),
    "load a program into the kernel": lambda: syscall(321, 5, ctypes.create_string_buffer(128), 128),
    "watch the machine": lambda: syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "trust a file handle": lambda: syscall(304, -100, ctypes.create_string_buffer(64), 0),
    "restart the machine's clock": lambda: worked(libc.adjtimex(ctypes.create_string_buffer(256))) and None,
    "get a key": lambda: syscall(250, 0, -5, 0) and None,
    # what the parent left
    "read the environment": lambda: GIVEN["secret"] in str(dict(os.environ)),
    "read the environment by libc": lambda: (
        ctypes.c_char_p.in_dll(libc, "environ") and libc.getenv(b"SECRET") != 0
    ),
    "read the standard input": lambda: sys.stdin.read(),
    "use the descriptor that the parent reads": lambda: any(
        "request" in frame.f_locals and os.fstat(frame.f_locals["status"]) for frame in frames()
    ),
    "take memory": lambda: len(bytearray(1 << 31)),
    "map memory": lambda: mmap.mmap(-1, 1 << 31),
    "take memory that counts for nobody": lambda: [os.memfd_create("x") for _ in range(100)],
    "take shared memory": lambda: syscall(29, 0, 1 << 31, 0o1600) and None,
    "open many files": lambda: [os.pipe() for _ in range(2000)],
}


def frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


for name, attempt in ATTEMPTS.items():
    try:
        print("ESCAPED" if attempt() else "contained", name)
    except BaseException as error:
        print("contained", name, "-", type(error).__name__)
print(len(ATTEMPTS), "attempts")
