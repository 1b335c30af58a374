"""Smartcar's HTTP face: the paths of smartcar-openapi.yaml on one loopback port.

Its hosts become one origin: token, vehicle, management and v2.0 paths do not collide.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from agent.standin.schedules import BadRequestError
from agent.standin.server import LoopbackServer, by_method
from agent.standin.smartcar_api import CALL, SmartcarApi, json_answer
from agent.standin.smartcar_control import smartcar_control_routes
from agent.standin.smartcar_errors import SmartcarError
from agent.standin.smartcar_gate import SmartcarGate
from agent.standin.smartcar_management import Management
from agent.standin.smartcar_v2 import READS, SmartcarV2
from agent.standin.smartcar_webhooks import WebhookSender

if TYPE_CHECKING:
    from types import TracebackType

    from starlette.requests import Request
    from starlette.responses import Response

    from agent.standin.smartcar_api import Endpoint
    from agent.standin.smartcar_state import SmartcarStandin

V2_PREFIX = "/v2.0/"
SETTLE_REAL_S = 0.05
"""How often cars live on by themselves; a night at 300 times the speed moves 15 s."""


def make_smartcar_app(
    cloud: SmartcarStandin, sender: WebhookSender | None = None
) -> Starlette:
    """Return the ASGI app that serves `cloud`, and `/_control/smartcar`.

    With a `sender` the control face also sets up and sends webhooks.
    """
    api = SmartcarApi(cloud)
    management = Management(cloud, api)
    car = "/v3/vehicles/{vehicleId}"
    routes = [
        Route("/oauth2/token", api.token, methods=["POST"]),
        Route("/v3/connections", api.connections, methods=["GET"]),
        Route("/v3/connections/{connectionId}", api.connection, methods=["GET", "DELETE"]),
        Route("/v3/users/{userId}", api.user, methods=["DELETE"]),
        Route(car, api.vehicle, methods=["GET"]),
        Route(f"{car}/signals", api.signals, methods=["GET"]),
        Route(f"{car}/signals/{{signalCode}}", api.signal, methods=["GET"]),
        Route(f"{car}/commands/charge/start", api.start, methods=["POST"]),
        Route(f"{car}/commands/charge/stop", api.stop, methods=["POST"]),
        Route(f"{car}/commands/charge/set-limit", api.set_limit, methods=["POST"]),
        Route("/v3/webhooks", management.webhooks, methods=["GET"]),
        Route("/v3/webhooks/{webhookId}", management.webhook, methods=["GET"]),
        Route("/v3/subscriptions", management.subscriptions, methods=["GET", "POST"]),
        Route(
            "/v3/subscriptions/{subscriptionId}",
            management.subscription,
            methods=["GET", "DELETE"],
        ),
        *_v2_routes(cloud),
    ]
    errors = _Errors(cloud)
    app = Starlette(
        routes=[*routes, *smartcar_control_routes(cloud, sender)],
        middleware=[Middleware(SmartcarGate, cloud)],
        exception_handlers={
            SmartcarError: errors.smartcar,
            BadRequestError: errors.bad_control,
            HTTPException: errors.http,
        },
    )
    app.router.redirect_slashes = False
    return app


def _v2_routes(cloud: SmartcarStandin) -> list[Route]:
    """v2.0; a vehicle's URLs are good with and without a slash at the end."""
    v2 = SmartcarV2(cloud)
    car = f"{V2_PREFIX}vehicles/{{vehicleId}}"
    charge: dict[str, Endpoint] = {"GET": v2.read, "POST": v2.control}
    limit: dict[str, Endpoint] = {"GET": v2.read, "POST": v2.set_limit}
    only_read: dict[str, Endpoint] = {"GET": v2.read}
    rows: list[tuple[str, dict[str, Endpoint]]] = [
        (car, only_read),
        *(
            (car + path, only_read)
            for path in READS
            if path not in ("/", "/charge", "/charge/limit")
        ),
        (f"{car}/charge", charge),
        (f"{car}/charge/limit", limit),
        (f"{car}/batch", {"POST": v2.batch}),
        (f"{car}/application", {"DELETE": v2.disconnect}),
        (f"{V2_PREFIX}vehicles", {"GET": v2.vehicles}),
        (f"{V2_PREFIX}user", {"GET": v2.user}),
        (f"{V2_PREFIX}management/connections", {"GET": v2.connections}),
    ]
    routes = [Route("/oauth/token", v2.token, methods=["POST"])]
    for path, endpoints in rows:
        routes.extend(
            Route(each, by_method(endpoints), methods=list(endpoints))
            for each in (path, f"{path}/")
        )
    return routes


class SmartcarServer(LoopbackServer):
    """Serves a stand-in Smartcar on 127.0.0.1 between `async with` and its end."""

    def __init__(self, cloud: SmartcarStandin, *, port: int = 0) -> None:
        """Prepare; port 0 lets the machine choose one."""
        self.sender = WebhookSender(cloud)
        super().__init__(make_smartcar_app(cloud, self.sender), port=port)
        self.cloud = cloud
        self._life = asyncio.TaskGroup()
        self._living: list[asyncio.Task[None]] = []

    @property
    def token_url(self) -> str:
        """The v3 token endpoint."""
        return f"{self.root_url}/oauth2/token"

    @property
    def api_url(self) -> str:
        """The v3 vehicle API, without a slash at the end."""
        return f"{self.root_url}/v3"

    @property
    def management_url(self) -> str:
        """The v3 management API, without a slash at the end."""
        return f"{self.root_url}/v3"

    @property
    def v2_management_url(self) -> str:
        """The v2.0 management API, without a slash at the end."""
        return f"{self.root_url}/v2.0"

    @property
    def v2_token_url(self) -> str:
        """The v2.0 token endpoint."""
        return f"{self.root_url}/oauth/token"

    @property
    def v2_url(self) -> str:
        """The v2.0 API, without a slash at the end."""
        return f"{self.root_url}/v2.0"

    async def __aenter__(self) -> Self:
        """Listen, and let the cars live on; OSError when the port is taken."""
        await super().__aenter__()
        await self._life.__aenter__()
        self._living = [
            self._life.create_task(self._live(), name="standin-cars"),
            self._life.create_task(self.sender.run(), name="standin-webhooks"),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and wait until all is closed; a failure of the server is raised."""
        try:
            for task in self._living:
                task.cancel()
            if self._living:
                await self._life.__aexit__(None, None, None)
        finally:
            await super().__aexit__(kind, error, trace)

    async def _live(self) -> None:
        while True:
            self.cloud.settle()
            await asyncio.sleep(SETTLE_REAL_S)


class _Errors:
    """Writes each refusal in the form of its generation."""

    def __init__(self, cloud: SmartcarStandin) -> None:
        self._cloud = cloud

    async def smartcar(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, SmartcarError):
            raise error
        request_id = self._cloud.request_id()
        is_v2 = request.url.path.startswith(V2_PREFIX)
        body = error.v2(request_id) if is_v2 else error.v3(request_id)
        call = request.scope.get(CALL)
        if call is not None and call.calls:
            now = self._cloud.clock.now()
            self._cloud.limits.give_back(call.vehicle_id, now, call.calls)
        headers = {"SC-Request-Id": request_id, **error.headers}
        return json_answer(body, error.status, headers)

    async def http(self, request: Request, error: Exception) -> Response:
        """Turn unknown paths and methods into the table's errors."""
        if not isinstance(error, HTTPException):
            raise error
        path = request.url.path
        name = "RESOURCE_NOT_FOUND:INVALID_PATH"
        if path.startswith(V2_PREFIX):
            name = "RESOURCE_NOT_FOUND:PATH"
        elif not path.startswith("/v3/"):
            name = "RESOURCE_NOT_FOUND:VERSION"
        if error.status_code == 405:  # noqa: PLR2004 the status has a name already
            name = "VALIDATION:METHOD"
        made = SmartcarError(name, path, headers=dict(error.headers or {}))
        return await self.smartcar(request, made)

    async def bad_control(self, _request: Request, error: Exception) -> Response:
        return json_answer({"message": str(error)}, 400)
