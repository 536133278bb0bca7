"""The table of what runs: name, state, pid, port, uptime, restarts."""

from rich.table import Table

from fallow_chassis.clock import SystemClock
from fallow_stack.home import StackStatus

STYLES = {"running": "green", "restarting": "yellow", "starting": "yellow", "failed": "red", "stopped": "dim"}


def show_uptime(seconds: float) -> str:
    """Seconds as `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def status_table(status: StackStatus) -> Table:
    """One line a process."""
    table = Table("NAME", "STATE", "PID", "PORT", "UPTIME", "RESTARTS", "NOTE", box=None)
    now = SystemClock().now().timestamp()
    for member in status.members:
        style = STYLES.get(member.state, "")
        running = member.state == "running"
        table.add_row(
            member.name,
            f"[{style}]{member.state}[/]" if style else member.state,
            str(member.pid) if member.pid else "-",
            str(member.port),
            show_uptime(now - member.started) if running else "-",
            str(member.restarts),
            member.note,
        )
    return table
