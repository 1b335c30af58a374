"""ChargEye's HTTP face: the paths of chargeye-openapi.yaml, and uvicorn around it.

All paths stand in `PATHS`; the inferred ones can be changed by name with
`ChargEyeStandin(paths=...)`. Serves loopback only and installs no signal handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Self

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from uvicorn import Config, Server

from agent.standin.api import Api, answer_error, answer_http_error
from agent.standin.control import control_routes
from agent.standin.gate import CuttingProtocol, FaultGate
from agent.standin.schedules import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from agent.standin.state import ChargEyeStandin

BASE_PATH = "/api"
PATHS = {
    "token": "/auth/refreshAccessToken",
    "locations": "/locations",
    "location": "/locations/{locationUid}",
    "location_stations": "/locations/{locationUid}/stations",
    "location_schedules": "/locations/{locationUid}/schedules",
    "vehicles": "/vehicles",
    "vehicle": "/vehicles/{vehicleId}",
    "vehicle_schedules": "/vehicles/{vehicleId}/schedules",
    "active_schedule": "/vehicles/{vehicleId}/schedules/active",
    "stations": "/stations",
    "station_transactions": "/chargingStations/{stationId}/transactions",
    "transactions": "/transactions",
    "transaction": "/transactions/{txId}",
    "power_group": "/loadBalancing/powerGroup/{powerGroupId}",
}
"""Names of chargeye.md section 4; a changed entry needs the same placeholders."""
STOP_S = 1
"""An unfinished slow answer may hold the stop up for no longer."""


def make_app(cloud: ChargEyeStandin) -> Starlette:
    """Return the ASGI app that serves `cloud` under `/api` and `/_control`."""
    unknown = set(cloud.paths) - set(PATHS)
    if unknown:
        raise ValueError(f"path table has no {', '.join(sorted(unknown))}")
    api = Api(cloud)
    routes = []
    for name, path in {**PATHS, **cloud.paths}.items():
        for method, endpoint in api.endpoints[name].items():
            routes.append(Route(BASE_PATH + path, endpoint, methods=[method]))
    # Fixed paths before those with placeholders, whatever was overridden.
    routes.sort(key=lambda route: route.path.count("{"))
    return Starlette(
        routes=[*_merged(routes), *control_routes(cloud)],
        middleware=[Middleware(FaultGate, cloud)],
        exception_handlers={
            BadRequestError: answer_error,
            404: answer_http_error,
            405: answer_http_error,
        },
    )


class LoopbackServer:
    """Serves an app on 127.0.0.1 between `async with` and its end."""

    def __init__(self, app: Starlette, *, port: int = 0) -> None:
        """Prepare; port 0 lets the machine choose one."""
        self._app = app
        self._wanted_port = port
        self._socket: socket.socket | None = None
        self._server: _QuietServer | None = None
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """TCP port in use; 0 before the start."""
        return self._port

    @property
    def root_url(self) -> str:
        """Root for `/_control/...`, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        """Listen; OSError when the port is taken."""
        listener = socket.create_server(("127.0.0.1", self._wanted_port))
        # Else the body of an answer waits 40 ms for the ACK of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = listener.getsockname()[1]
        config = Config(
            self._app,
            http=CuttingProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
        self._server = _QuietServer(config)
        await self._group.__aenter__()
        self._task = self._group.create_task(
            self._server.serve(sockets=[listener]), name="standin-server"
        )
        try:
            await self._server.is_up.wait()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and wait until all is closed; a failure of the server is raised."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait([self._task])
        is_cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if is_cancelled:
            await self._group.__aexit__(kind, error, trace)
        else:
            await self._group.__aexit__(None, None, None)


class StandinServer(LoopbackServer):
    """Serves the stand-in ChargEye."""

    def __init__(self, cloud: ChargEyeStandin, *, port: int = 0) -> None:
        """Prepare; port 0 lets the machine choose one."""
        super().__init__(make_app(cloud), port=port)
        self.cloud = cloud

    @property
    def base_url(self) -> str:
        """Base URL for a client, with `/api`, without a slash at the end."""
        return f"{self.root_url}{BASE_PATH}"


class _QuietServer(Server):
    """uvicorn's server without signal handlers; says when it listens."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.is_up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _merged(routes: list[Route]) -> list[Route]:
    """Join routes of one path, so that a wrong method is 405 and not 404."""
    by_path: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in (route.methods or set()) - {"HEAD"}:
            by_path.setdefault(route.path, {})[method] = route.endpoint
    return [
        Route(path, by_method(endpoints), methods=list(endpoints))
        for path, endpoints in by_path.items()
    ]


def by_method(endpoints: dict[str, Any]) -> Any:
    """Join the endpoints of one path; HEAD is answered as GET."""

    async def endpoint(request: Any) -> Any:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return endpoint
