"""Runs in a child process, by its path: gives up all that this process may do, then runs a program in it.

Standard library only. It reads a request on standard input (`Request`), writes what it achieved to the descriptor
`status`, and stops there if that is less than was asked for. From then on the program owns this process, so nothing
in it is worth having: no environment, no descriptor, no file beyond the libraries of Python.

    launcher                 namespaces(7): mount, pid, network, ipc, uts; and user, unless it is root
      `- init                process 1 of the pid namespace: a root of its own (tmpfs; libraries bound read-only)
           `- program        another user, no capabilities, limits, Landlock, seccomp

The launcher never runs code of the program, so the program cannot stop the parent from killing it; then init dies
with it, and the kernel kills whatever else is in the namespace. Without namespaces the program runs in the first
process. Then it may neither write a file nor start a process.
"""

import ast
import builtins
import ctypes
import json
import linecache
import os
import platform
import resource
import signal
import struct
import sys
import traceback
from typing import Any, NoReturn

_LIBC = ctypes.CDLL(None, use_errno=True)

_NEW_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # mount, pid, net, ipc, uts
_NEW_USER = 0x10000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MS_OF_STATVFS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of statvfs -> flags of mount: those of the host's mount must stay."""
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_OWN_IDS = 0x7A000000
"""First of the user ids of which a run as root takes one: no account has one of these."""
_FOLDER = "/tmp"

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_CHANGE = _WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 13 | 1 << 14
"""Landlock's rights to write, remove and make files and folders, to link and to truncate."""

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_EPERM, _ENOSYS = 1, 38
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    # other processes: their start, signals, memory, limits and turns
    **{"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)},
    **{"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138)},
    **{"rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434)},
    **{"pidfd_getfd": (438, 438), "ptrace": (101, 117), "process_vm_readv": (310, 270)},
    **{"process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272)},
    **{"setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118)},
    **{"sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30)},
    **{"migrate_pages": (256, 238), "move_pages": (279, 239), "prctl": (157, 167)},
    # owners, permissions, dates and attributes of files, about which Landlock says nothing
    **{"chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452)},
    **{"chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54)},
    **{"utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88)},
    **{"setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463)},
    **{"removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16)},
    **{"removexattrat": (466, 466), "file_setattr": (469, 469), "flock": (73, 32)},
    # the network, and other ways to talk
    **{"socket": (41, 198), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426)},
    **{"io_uring_register": (427, 427), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190)},
    **{"mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447)},
    # the machine
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429)},
    **{"fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433)},
    **{"mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219)},
    **{"add_key": (248, 217), "request_key": (249, 218), "kexec_load": (246, 104), "init_module": (175, 105)},
    **{"finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224)},
    **{"swapoff": (168, 225), "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112)},
    **{"clock_adjtime": (305, 266), "adjtimex": (159, 171), "syslog": (103, 116), "quotactl": (179, 60)},
    **{"personality": (135, 92), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None)},
}
"""System calls that fail: their numbers on x86-64 and on ARM64."""
_CLONE, _CLONE3, _PRLIMIT = (56, 220), 435, (302, 261)
_CLONE_THREAD = 0x00010000


def _checked(result: int, what: str) -> int:
    """The result of a call of libc. Raises OSError if it failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    arguments = (text.encode() or None for text in (source, target, kind))
    one, two, three = arguments
    _checked(_LIBC.mount(one, two, three, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def _prctl(option: int, *values: Any) -> None:
    filled = [*values, 0, 0, 0, 0][:4]
    _checked(
        _LIBC.prctl(option, *(ctypes.c_ulong(v) if isinstance(v, int) else v for v in filled)),
        f"prctl {option}",
    )


def own_namespaces() -> bool:
    """Leave the namespaces of the host; the next child is process 1 of a pid namespace. Returns whether a user
    namespace was needed for that. Raises OSError where the system forbids it.
    """
    if os.geteuid() == 0 and _LIBC.unshare(_NEW_NAMESPACES) == 0:
        return False
    user, group = os.geteuid(), os.getegid()
    _checked(_LIBC.unshare(_NEW_USER | _NEW_NAMESPACES), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True


def own_root(readable: list[str], files: int) -> None:
    """Make a file system of the readable paths and an empty /tmp the only one there is. In a mount namespace."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    sources = [
        (path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in readable if not os.path.islink(path)
    ]
    root = os.path.dirname(os.path.abspath(__file__))  # any folder will do: only this process sees it
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=1m,nr_inodes=4000,mode=755")
    os.mkdir(root + _FOLDER)  # first: libraries may lie below it
    _mount(
        "tmpfs",
        root + _FOLDER,
        "tmpfs",
        _MS_NOSUID | _MS_NODEV | _MS_NOEXEC,
        f"size={files},nr_inodes=2000,mode=1777",
    )
    for path in readable:
        if os.path.islink(path):
            os.makedirs(root + os.path.dirname(path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)
    for path, source in sources:
        _bind(source, root + path)
        os.close(source)
    _mount("", root, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.chdir(root)
    number = {"x86_64": 155, "aarch64": 41}[platform.machine()]
    _checked(_LIBC.syscall(number, b".", b"."), "pivot_root")
    _checked(_LIBC.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir(_FOLDER)


def _bind(source: int, target: str) -> None:
    """Show a file or folder at another path, read-only."""
    name = f"/proc/self/fd/{source}"
    if os.path.isdir(name):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(name, target, "", _MS_BIND | _MS_REC)
    had = os.statvfs(target).f_flag
    kept = sum(flag for bit, flag in _MS_OF_STATVFS.items() if had & bit)
    writable = 0 if target.endswith("/dev/null") else _MS_RDONLY
    _mount("", target, "", _MS_REMOUNT | _MS_BIND | writable | _MS_NOSUID | kept)


def give_up_rights(own_user: int | None) -> None:
    """Become another user, if there is a number for one; without any capability, and none to be had."""
    if own_user is not None:
        os.setgroups([])
        os.setresgid(own_user, own_user, own_user)
        os.setresuid(own_user, own_user, own_user)
    header = struct.pack("Ii", 0x20080522, 0)
    _checked(_LIBC.capset(header, bytes(24)), "capset")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def limit(seconds: float, memory: int, files: int, processes: int) -> None:
    """The limits of resources. A process of another user may have as many processes as are asked for."""
    for name, most in {
        "CORE": 0,
        "CPU": int(seconds) + 1,
        "AS": memory,
        "FSIZE": files,
        "NOFILE": 64,
        "NPROC": processes,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


def landlock_version() -> int:
    """The version of Landlock that the kernel has; 0 if none."""
    return max(0, _LIBC.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1)))


def landlock(readable: list[str], writable: list[str]) -> None:
    """Only these files, no TCP, no signals and no sockets out of here, as far as the kernel's version goes
    (landlock(7)).
    """
    version = landlock_version()
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("QQQ", files, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _checked(
        _LIBC.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)),
        "landlock",
    )
    rules = [(path, 0) for path in readable] + [(path, _CHANGE) for path in writable]
    for path, more in rules:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = (_READ_FILE | _READ_DIR | more) & files
        if not os.path.isdir(path):
            rights = (_READ_FILE | (_WRITE_FILE if path == "/dev/null" else 0)) & files
        rule = struct.pack("=Qi", rights, target)
        _checked(
            _LIBC.syscall(_LANDLOCK_ADD, ruleset, ctypes.c_int(1), rule, ctypes.c_uint(0)), f"landlock {path}"
        )
        os.close(target)
    _checked(_LIBC.syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint(0)), "landlock")
    os.close(ruleset)


def seccomp() -> None:
    """Let the system calls of `_FORBIDDEN` fail, and all that would start a process but not a thread (seccomp(2))."""
    column = list(_ARCHITECTURES).index(platform.machine())
    load, equal, at_least, any_of, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, missing = 0x7FFF0000, 0x00050000 | _EPERM, 0x00050000 | _ENOSYS
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, _ARCHITECTURES[platform.machine()]),
        (give, 0, 0, 0x80000000),  # another one: end the process
        (load, 0, 0, 0),  # the number of the call
        (at_least, 0, 1, 0x40000000),  # the calls of x32
        (give, 0, 0, refuse),
        (equal, 0, 1, _CLONE3),  # its flags lie in memory; libc takes clone instead
        (give, 0, 0, missing),
    ]
    for number in (numbers[column] for numbers in _FORBIDDEN.values()):
        if number is not None:
            program += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    program += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (any_of, 0, 1, _CLONE_THREAD)]
    program += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    program += [(equal, 0, 4, _PRLIMIT[column]), (load, 0, 0, 16), (equal, 0, 1, 0)]  # of this process only
    program += [(give, 0, 0, allow), (give, 0, 0, refuse), (give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filled = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    _prctl(_PR_SET_SECCOMP, 2, filled)


def main() -> None:
    """Confine this process as the request says, and run its code."""
    request = json.loads(sys.stdin.buffer.read())
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    status = request["status"]
    os.set_inheritable(status, False)
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        own_user = None
        if request["namespaces"]:
            in_user_namespace = own_namespaces()
            if not in_user_namespace:
                own_user = _OWN_IDS + int.from_bytes(os.urandom(3), "little")
            _become_init(request["wall"])
            own_root(request["readable"], request["files"])
            _fork_and_wait()
        writable = [_FOLDER] if request["namespaces"] else []
        give_up_rights(own_user)
        limit(request["seconds"], request["memory"], request["files"], request["processes"])
        if request["landlock"]:
            landlock(request["readable"], writable)
        if request["seccomp"]:
            seccomp()
    except Exception as error:  # the parent reads why; the program never runs
        os.write(status, json.dumps({"error": f"{error}"}).encode())
        os._exit(1)
    os.write(status, b'{"ready": true}')
    os.close(status)
    run(request["code"], request["packages"])


def _become_init(seconds: float) -> None:
    """Fork; the parent waits, the child is process 1, and dies with its parent or when the time is long over."""
    _fork_and_wait()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(int(seconds) + 5)


def _fork_and_wait() -> None:
    """Fork, and go on in the child; the parent ends as the child does."""
    child = os.fork()
    if child == 0:
        return
    while True:
        ended, how = os.wait()
        if ended == child:
            os._exit(os.WEXITSTATUS(how) if os.WIFEXITED(how) else 128 + os.WTERMSIG(how))


def run(code: str, packages: list[str]) -> NoReturn:
    """Run a program as an interactive session would: the value of a last expression is printed."""
    sys.path += packages
    sys.argv[:] = ["program"]
    name, status = "<program>", 0
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    try:
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
            if value is not None:
                print(repr(value))
    except SystemExit as end:
        status = 0 if end.code in (None, 0) else 1
        if isinstance(end.code, str):
            print(end.code)
    except BaseException as error:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_code.co_filename != name:
            frames = frames.tb_next
        print("".join(traceback.format_exception(type(error), error, frames, limit=-4)), end="")
        status = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = 1
    os._exit(status)


if __name__ == "__main__":
    main()
