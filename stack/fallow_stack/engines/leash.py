"""Start a program that dies with its parent; on Linux also as another user, by a user namespace.

Run as a script by ``process.Process``: ``python -I -S leash.py OPTIONS -- PROGRAM ARGUMENTS``. It prepares itself and
then becomes the program (exec), so that the program has the process id that was started. It imports nothing but the
standard library's smallest parts, because it runs before each engine.

* ``--parent PID --signal N``: the kernel sends N to the program when the thread that started it ends (PR_SET_PDEATHSIG);
  if the parent is gone already, nothing is started.
* ``--map-user UID``: enter a new user namespace in which the present user is UID, for programs that refuse root. Files
  that the present user owns stay reachable, private folders too.
* ``--user UID --group GID``: become that user (root only). The program must lie where that user can enter.

The program gets the environment that this script was started with: everybody can read a command line, and some of the
variables are secrets.
"""

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Read the options, prepare, become the program."""
    split = arguments.index("--")
    options = dict(zip(arguments[:split:2], arguments[1:split:2], strict=True))
    program = arguments[split + 1 :]
    if "--map-user" in options:
        enter_user_namespace(int(options["--map-user"]))
    if "--user" in options:
        os.setgroups([])
        os.setgid(int(options["--group"]))
        os.setuid(int(options["--user"]))
    if "--parent" in options:
        follow_parent(int(options["--parent"]), int(options["--signal"]))
    os.execv(program[0], program)  # noqa: S606 - the program is given whole, without a shell


def enter_user_namespace(user: int) -> None:
    """Become ``user`` in a namespace of our own; OSError where the kernel does not allow it."""
    real = os.geteuid()
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with open("/proc/self/uid_map", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow to import
        file.write(f"{user} {real} 1")


def follow_parent(parent: int, signal: int) -> None:
    """Have the kernel end us with our parent; a change of user undoes it, so this comes last."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that wanted this program is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
