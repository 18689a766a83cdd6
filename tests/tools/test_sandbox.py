"""What a program can do in each sandbox, and what it cannot."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import crawltalk.tools
from crawltalk.tools.python import Python
from crawltalk.tools.sandbox.cpython import CPythonSandbox, Layers, NotConfined
from crawltalk.tools.sandbox.monty import MontySandbox
from crawltalk.tools.sandbox.outcome import Limits

ESCAPES = Path(__file__).with_name("escapes.py")
PACKAGE = Path(crawltalk.tools.__file__).parent
SECRET = "a secret of the host"
LIMITS = Limits(seconds=8.0, files=16 << 20)
MODES = {
    "all": Layers(namespaces=True, landlock=True, seccomp=True),
    "without namespaces": Layers(namespaces=False, landlock=True, seccomp=True),
    "namespaces alone": Layers(namespaces=True, landlock=False, seccomp=False),
}

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux confines")


@pytest.fixture(params=MODES)
def sandbox(request):
    """A sandbox of CPython with some of its layers, if this machine grants them."""
    if sys.platform != "linux":
        pytest.skip("the kernel of Linux confines")
    granted, asked = CPythonSandbox().active, MODES[request.param]
    if not all(getattr(granted, name) for name in vars(asked) if getattr(asked, name)):
        pytest.skip(f"this machine grants {granted}")
    return CPythonSandbox(LIMITS, asked)


@pytest.fixture
def monty():
    sandbox = MontySandbox(Limits(seconds=1.0))
    yield sandbox
    sandbox.close()


@pytest.fixture
def host(tmp_path, monkeypatch):
    """What a program would have to reach to have got out."""
    folder = tmp_path / "host"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o666)
    folder.chmod(0o777)
    monkeypatch.setenv("SECRET", SECRET)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX) as named,
        socket.create_server(("127.0.0.1", 0)) as free,
        (folder / "secret").open() as left,
    ):
        os.set_inheritable(left.fileno(), True)
        abstract.bind(f"\0crawltalk-{os.getpid()}")
        named.bind(str(folder / "socket"))
        for one in (abstract, named):
            one.listen()
        given = {
            "secret": SECRET,
            "folder": str(folder),
            "package": str(PACKAGE),
            "parent": os.getpid(),
            "port": listener.getsockname()[1],
            "free": free.getsockname()[1],
            "abstract": abstract.getsockname().decode(),
        }
        state = (folder / "secret").stat()
        before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
        yield given
        assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)) == before
        listener.settimeout(0.01)
        for one in (listener, abstract, named):
            one.settimeout(0.01)
            with pytest.raises(TimeoutError):
                one.accept()
    assert sorted(path.name for path in folder.iterdir()) == ["secret", "socket"]
    after = (folder / "secret").stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        state.st_mode,
        state.st_uid,
        state.st_mtime_ns,
    )
    assert (folder / "secret").read_text() == SECRET


def test_no_attempt_gets_out_of_a_confined_process(sandbox, host):
    library = {
        path: Path(path).stat().st_size for path in (os.__file__, str(PACKAGE / "sandbox" / "confine.py"))
    }
    outcome = sandbox.run(f"GIVEN = {host!r}\n{ESCAPES.read_text()}")
    lines = outcome.output.splitlines()
    assert [line for line in lines if line.startswith("ESCAPED")] == []
    assert outcome.problem == "" and int(lines[-1].split()[0]) == len(lines) - 1 >= 90
    assert library == {path: Path(path).stat().st_size for path in library}
    assert not (PACKAGE / "planted.py").exists()


def test_a_program_runs_as_in_an_interactive_session(sandbox):
    outcome = sandbox.run("import json, math\nprint(json.dumps([1]))\nx = 6\nx * 7")
    assert (outcome.output, outcome.problem, outcome.truncated) == ("[1]\n42\n", "", False)
    outcome = sandbox.run("import numpy\nint(numpy.arange(10).sum())")
    assert outcome.output == "45\n"


def test_an_error_is_its_last_line_without_our_own_frames(sandbox):
    outcome = sandbox.run("def f(x):\n    return 1 / x\nprint('so far')\nf(0)")
    assert outcome.problem == "ZeroDivisionError: division by zero"
    assert outcome.output.startswith("so far\nTraceback") and "confine" not in outcome.output
    assert sandbox.run("f(").problem.startswith("SyntaxError")
    assert sandbox.run("import sys\nsys.exit(0)").problem == ""
    assert sandbox.run("import sys\nsys.exit('no')").problem == "no"


def test_files_last_as_long_as_the_run(sandbox):
    if not sandbox.active.namespaces:
        assert (
            "PermissionError"
            in sandbox.run("open('/tmp/a', 'w')").problem + sandbox.run("open('b', 'w')").problem
        )
        return
    assert sandbox.run("open('a', 'w').write('x')\nimport os\nos.path.abspath('a')").output == "'/tmp/a'\n"
    assert sandbox.run("import os\nos.path.exists('a')").output == "False\n"


def test_a_flood_of_output_is_cut_at_the_stated_size(sandbox):
    outcome = sandbox.run("while True: print('x' * 1000)")
    assert outcome.truncated and len(outcome.output) == LIMITS.output
    assert outcome.problem == "the program was ended: it wrote more than 16,384 bytes"


def alive(tag: str) -> set[tuple[str, str]]:
    """This machine's processes in whose command line a text stands: (number, command line)."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if tag in text:
            found.add((path.parent.name, text))
    return found


STUBBORN = """
import os, signal, time, threading
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
try:
    os.setsid()
except OSError:
    pass
for _ in range(40):
    try:
        if os.fork() == 0:
            for _ in range(3):
                try:
                    os.fork()
                except OSError:
                    break
            break
    except OSError:
        break
os.close(2)
time.sleep(60)
"""


def test_nothing_outlives_the_end_of_the_time(host, sandbox):
    short = CPythonSandbox(Limits(seconds=0.8), sandbox.active)
    began = time.monotonic()
    outcome = short.run(STUBBORN)
    assert outcome.problem == "the program was ended after 0.8 s"
    left = alive("confine.py")  # of other tests, too, which may run at the same time: those end by themselves
    while left and time.monotonic() < began + 40:  # STUBBORN sleeps for longer
        time.sleep(0.05)
        left &= alive("confine.py")
    assert left == set()


def test_a_program_cannot_have_more_processes_than_its_limit(sandbox):
    program = (
        "import os, time\ncount = 0\ntry:\n    while count < 60:\n"
        "        if os.fork() == 0:\n            time.sleep(9)\n"
        "        count += 1\nexcept OSError:\n    pass\nprint(count)"
    )
    count = int(sandbox.run(program).output)
    assert count == 0 if sandbox.active.seccomp else 0 < count <= LIMITS.processes


@linux
def test_without_enough_layers_nothing_runs():
    for layers in (Layers(False, False, False), Layers(False, True, False), Layers(False, False, True)):
        with pytest.raises(NotConfined, match="cannot be kept in"):
            CPythonSandbox(layers=layers)


WITHOUT_NAMESPACES = """
import ctypes, os, struct, sys
from crawltalk.tools.sandbox import confine
confine._prctl(38, 1)
unshare = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
lines = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
filled = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code)))
confine._prctl(22, 2, filled)
from crawltalk.tools.python import Python
tool = Python()
print(tool.notice)
print(tool.call({"code": "6 * 7"}).text.shown)
print(tool.call({"code": "open('/etc/passwd')"}).text.shown.splitlines()[-1])
"""


@linux
def test_where_namespaces_are_forbidden_it_says_what_is_left():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "python runs in CPython, kept in by Landlock, seccomp, limits"
    assert lines[1] == "42" and lines[2].startswith("PermissionError")


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_is_confined_as_root_is(tmp_path):
    system = shutil.which("python3", path="/usr/bin")
    if system is None:
        pytest.skip("there is no Python that every user may run")
    code = (
        'import os\nprint(os.getuid(), os.listdir("/tmp"), open("a", "w").write("x"))\nopen(os.__file__, "a")'
    )
    program = (
        "from crawltalk.tools.sandbox.cpython import CPythonSandbox as S\n"
        f"s = S()\nprint(s.layers)\nprint(s.run({code!r}))"
    )
    source = Path(crawltalk.tools.__file__).parents[2]
    done = subprocess.run(
        [system, "-B", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
        env={"PYTHONPATH": str(source)},
        cwd="/",
    )
    if "ModuleNotFoundError" in done.stderr or "Permission" in done.stderr:
        pytest.skip("another user cannot read this package")
    if "namespaces" not in done.stdout:
        pytest.skip("ordinary users get no namespaces here")
    assert "1000 [] 1" in done.stdout and "PermissionError" in done.stdout, done.stdout + done.stderr


MONTY_ESCAPES = [
    *(f"open({path!r})" for path in ("/etc/passwd", "/proc/self/environ", "/dev/mem", "FOLDER/secret", "secret")),
    *(f"open({path!r}, 'w')" for path in ("/tmp/x", "FOLDER/written", "planted.py")),
    *(f"import {name}" for name in ("subprocess", "socket", "ctypes", "signal", "threading", "multiprocessing")),
    *(f"import {name}" for name in ("shutil", "tempfile", "mmap", "pickle", "importlib", "urllib", "http", "resource")),
    *(f"import {name}" for name in ("builtins", "gc", "inspect", "code", "posix", "_posixsubprocess", "fcntl", "pty")),
    *(f"import {name}" for name in ("crawltalk", "numpy", "pydantic_monty", "planted", "select", "sqlite3", "ssl")),
    *(f"import os\nos.{call}" for call in ("system('id')", "fork()", "listdir('/')", "kill(PARENT, 0)", "remove('x')")),
    *(f"import os\nos.{call}" for call in ("environ['SECRET']", "getenv('SECRET') + ''", "execv('/bin/sh', [])")),
    *(f"import os\nos.{call}" for call in ("popen('id')", "mkdir('FOLDER/a')", "open('/etc/passwd', 0)", "dup(3)")),
    *(f"from pathlib import Path\nPath({path!r}).{call}" for path, call in (
        ("/etc/passwd", "read_text()"), ("FOLDER/secret", "read_bytes()"), ("FOLDER/new", "write_text('x')"),
        ("FOLDER/made", "mkdir()"), ("FOLDER/secret", "unlink()"), ("FOLDER/secret", "rename('x')"), ("/", "iterdir()"),
    )),
    *("__import__('subprocess')", "globals()['__builtins__']['open']", "().__class__.__base__.__subclasses__()"),
    *("(lambda: 0).__globals__", "print.__self__", "''.__class__.__mro__", "type(print).__call__(exec)"),
    *("f'{().__class__.__base__}'", "'{0.__class__.__base__}'.format(())", "breakpoint()", "input()"),
    *("import sys\nsys.modules['os'].system('id')", "import sys\nsys._getframe()", "import sys\nsys.path.append('x')"),
    "import asyncio\nasyncio.create_subprocess_exec('id')",
    "import asyncio\nasyncio.open_connection('127.0.0.1', PORT)",
    *("eval('__import__(\"socket\")')", "exec('import socket')", "compile('import socket', '', 'exec')"),
    *("[0] * 10**9", "'x' * 10**9", "bytearray(10**9)", "x = []\nwhile True: x.append('y' * 10**6)"),
    *("a = [1]\nfor _ in range(40): a = [a, a]\nprint(a)", "def f(): return f()\nf()", "10**10**9"),
]  # fmt: skip


def test_no_attempt_gets_out_of_monty(monty, host):
    assert len(MONTY_ESCAPES) >= 60
    for attempt in MONTY_ESCAPES:
        for name, value in (("FOLDER", "folder"), ("PARENT", "parent"), ("PORT", "port")):
            attempt = attempt.replace(name, str(host[value]))  # noqa: PLW2901
        outcome = monty.run(attempt)
        assert outcome.problem, (attempt, outcome)
        assert SECRET not in outcome.output and "root:" not in outcome.output
    assert monty.run("6 * 7").output == "42\n"


def test_monty_shows_the_value_of_the_last_expression(monty):
    for program, output in {
        "6 * 7": "42\n",
        "x = 1\nx + 1": "2\n",
        "print('a')\nNone": "a\n",
        "max(\n    1,\n    2,\n)": "2\n",
        "x = (\n    1)\nx": "1\n",
        "for i in range(2):\n    print(i)": "0\n1\n",
        "'''a\nb'''": "'a\\nb'\n",
        "x = '''\n2 # '''": "",
        "def f():\n    return 3\nf()\n# done": "3\n",
        "": "",
    }.items():
        assert monty.run(program).output == output, program


def test_monty_keeps_to_time_and_output(monty):
    began = time.monotonic()
    assert "time limit" in monty.run("while True: pass").problem and time.monotonic() - began < 30
    flood = monty.run("for _ in range(10**6): print('x' * 1000)")
    assert flood.truncated and len(flood.output) <= 16_384 and "wrote more than 16,384 bytes" in flood.problem
    assert monty.run("import time\ntime.sleep(60)\n1").output == "1\n"
    assert monty.run("1 / 0").problem == "ZeroDivisionError: division by zero"


def test_a_result_holds_the_output_and_why_it_ended():
    tool = Python("monty", Limits(seconds=2.0))
    try:
        assert tool.call({"code": "6 * 7"}).text.shown == "42"
        assert tool.call({"code": "x = 1"}).text.shown == "(no output)"
        failed = tool.call({"code": "print('a')\n1 / 0"})
        assert (
            failed.error and failed.text.shown.startswith("a\n") and "ZeroDivisionError" in failed.text.shown
        )
        assert tool.notice.startswith("python runs in Monty")
    finally:
        tool.close()


@linux
def test_many_runs_at_once_do_not_disturb_each_other():
    from concurrent.futures import ThreadPoolExecutor

    sandbox = CPythonSandbox()
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda number: sandbox.run(f"{number} * 2").output, range(12)))
    assert outputs == [f"{2 * number}\n" for number in range(12)]
    assert ctypes.CDLL(None).getpid() == os.getpid()
