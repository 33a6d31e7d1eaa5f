"""Python runs this at its start where its folder is on PYTHONPATH: whatever reaches for the network fails, and is listed.

An audit hook, not a replaced function: it hears the interpreter itself and cannot be taken away.
"""

import os
import socket
import sys

_REACHES_OUT = {
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.gethostbyaddr", "socket.getnameinfo", "urllib.Request", "http.client.connect", "ftplib.connect"),
    *("smtplib.connect", "imaplib.open", "poplib.connect", "webbrowser.open"),
}


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event not in _REACHES_OUT:
        return
    first = arguments[0] if arguments else None
    if isinstance(first, socket.socket) and first.family == socket.AF_UNIX:
        return  # between processes of this machine
    with open(os.environ["ATHWE_NETWORK_LOG"], "a", encoding="utf-8") as file:
        file.write(f"{event} {arguments!r}\n")
    raise PermissionError(f"the network is blocked: {event} {arguments!r}")


sys.addaudithook(_refuse)
