"""From the command `tuition studio` to a page in the browser: what is refused before a port opens, and the server."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tuition import api
from tuition.errors import UserError
from tuition.studio.guard import is_loopback
from tuition.studio.web import Studio

if TYPE_CHECKING:
    import uvicorn

_MOST_CONNECTIONS = 400
_SECONDS_TO_FINISH = 5
_THIS_MACHINE = {
    "0.0.0.0": "127.0.0.1",
    "": "127.0.0.1",
    "::": "::1",
}  # where one bound to all addresses is found


def serve(
    store: str | Path,
    *,
    runs: str | Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    allowed_hosts: Sequence[str] = (),
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    open_browser: bool = False,
    on_ready: Callable[[str, str], None] = lambda address, link: None,
) -> None:
    """Serve the studio until Ctrl-C.

    Args:
        store: the file that people's work is kept in; made where there is none.
        runs: the folder of the runs that are shown and started.
        port: 0 takes one that is free.
        allowed_hosts: further names by which people reach it, such as a proxy's.
        certificate: of TLS, with `key`.
        on_ready: told the address, and the link that signs in once.

    Raises:
        UserError: other machines could reach it and no admin has a password, or the port is taken.
    """
    import uvicorn

    if (certificate is None) != (key is None):
        raise UserError(
            "TLS needs a certificate and its key",
            where="--certificate",
            next_step="Give --certificate and --key",
        )
    with api.Store(store) as opened, closing(_listen(host, port)) as listening:
        studio = Studio(
            store=opened,
            runs=Path(runs),
            host=host,
            port=listening.getsockname()[1],
            allowed_hosts=tuple(allowed_hosts),
            secure=certificate is not None,
            open_to_others=any(not is_loopback(name) for name in (host, *allowed_hosts)),
        )
        if studio.open_to_others:
            _refuse_without_password(opened)
        config = _config(studio, certificate, key)
        listening.listen()  # from now on requests wait, and none is refused
        address = address_of(studio)
        link = f"{address}/enter/{api.sessions.make_link(opened, api.people.local_admin(opened).id)}"
        on_ready(address, link)
        if open_browser:
            webbrowser.open(link)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _config(studio: Studio, certificate: str | Path | None, key: str | Path | None) -> uvicorn.Config:
    import uvicorn

    from tuition.studio.app import make_app

    return uvicorn.Config(
        make_app(studio),
        log_level="warning",  # addresses of requests may hold links and names
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def address_of(studio: Studio) -> str:
    """Where a browser on this machine finds it."""
    host = _THIS_MACHINE.get(studio.host, studio.host)
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if studio.secure else 'http'}://{name}:{studio.port}"


def _refuse_without_password(store: api.Store) -> None:
    if not api.people.an_admin_has_a_password(store):
        raise UserError(
            "other machines could reach the studio, and no admin has a password yet",
            where="--host",
            next_step="Start it without --host and --allow-host, and set your password on the page People",
        )


def _listen(host: str, port: int) -> socket.socket:
    """The socket, before anything else: a taken port is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot listen there ({reason})", where=f"{host}:{port}", next_step="Name another --port"
        ) from None
    return listening
