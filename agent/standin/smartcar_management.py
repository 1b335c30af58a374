"""Smartcar's v3 management API on HTTP: webhooks (to read) and subscriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from agent.standin.smartcar_api import json_body
from agent.standin.smartcar_errors import SmartcarError

if TYPE_CHECKING:
    from starlette.requests import Request

    from agent.standin.schedules import JsonObject
    from agent.standin.smartcar_api import SmartcarApi
    from agent.standin.smartcar_state import SmartcarStandin

KEYS = ("webhookId", "userId", "vehicleId")


class Management:
    """The management endpoints of one application."""

    def __init__(self, cloud: SmartcarStandin, api: SmartcarApi) -> None:
        """Serve `cloud`, entered as `api` is."""
        self._cloud = cloud
        self._api = api

    async def webhooks(self, request: Request) -> Response:
        """GET a page of webhooks."""
        self._api.enter(request, "management")
        rows = [webhook.json() for webhook in self._cloud.webhooks.values()]
        return self._api.page(request, rows, self._cloud.subscription_rows)

    async def webhook(self, request: Request) -> Response:
        """GET one webhook."""
        self._api.enter(request, "management")
        found = self._cloud.webhooks.get(request.path_params["webhookId"])
        if found is None:
            raise SmartcarError("RESOURCE_NOT_FOUND", "the webhook is unknown")
        return self._api.answer({"data": found.json()})

    async def subscriptions(self, request: Request) -> Response:
        """GET a page of subscriptions, or POST one."""
        self._api.enter(request, "management")
        if request.method == "POST":
            self._subscribe(await json_body(request))
            return Response(status_code=202)
        query = request.query_params
        mode = query.get("filter[vehicle.mode]", "live")
        if mode not in ("live", "simulated"):
            raise SmartcarError("VALIDATION:PARAMETER", "filter[vehicle.mode] is wrong")
        rows = [
            row
            for row in self._cloud.subscriptions.values()
            if all(
                query.get(f"filter[{key}]") in (None, row["attributes"][key])
                for key in KEYS
            )
            and self._mode_of(row) == mode
        ]
        return self._api.page(request, rows, self._cloud.subscription_rows)

    async def subscription(self, request: Request) -> Response:
        """GET or DELETE one subscription."""
        self._api.enter(request, "management")
        wanted = request.path_params["subscriptionId"]
        if wanted not in self._cloud.subscriptions:
            raise SmartcarError("RESOURCE_NOT_FOUND", "the subscription is unknown")
        if request.method == "DELETE":
            del self._cloud.subscriptions[wanted]
            return Response(status_code=204)
        return self._api.answer({"data": self._cloud.subscriptions[wanted]})

    def _mode_of(self, row: JsonObject) -> str:
        car = self._cloud.cars.get(row["attributes"]["vehicleId"])
        return "live" if car is None else car.mode

    def _subscribe(self, body: object) -> None:
        """Take a new subscription; SmartcarError 400, or 409 when it exists."""
        try:
            given = body["data"]["attributes"]  # type: ignore[index]
            wanted = {key: given[key] for key in KEYS}
        except (KeyError, TypeError, IndexError) as error:
            words = f"data.attributes needs {', '.join(KEYS)}"
            raise SmartcarError("VALIDATION:MISSING_PARAMETER", words) from error
        if not all(isinstance(value, str) for value in wanted.values()):
            raise SmartcarError("VALIDATION:PARAMETER", "ids are text")
        car = self._cloud.cars.get(wanted["vehicleId"])
        is_known = wanted["webhookId"] in self._cloud.webhooks
        if car is None or car.user_id != wanted["userId"] or not is_known:
            raise SmartcarError("VALIDATION:PARAMETER", "webhook, user or vehicle unknown")
        rows = self._cloud.subscriptions.values()
        if any(row["attributes"] == wanted for row in rows):
            raise SmartcarError("VALIDATION:ALREADY_EXISTS")
        key = f"subscription-{self._cloud.request_id()}"
        self._cloud.subscriptions[key] = {
            "id": key,
            "type": "subscription",
            "attributes": wanted,
            "links": {"self": f"/v3/subscriptions/{key}"},
        }
