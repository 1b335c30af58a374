"""The list of log events: name -> level, meaning, and what a technician should do.

The README's table is generated from here, and a test holds that every event that the
code logs is in the list. Names are past-tense phrases (contract section 5).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of the log."""

    level: str
    meaning: str
    to_do: str = "nothing"


EVENTS: dict[str, LogEvent] = {
    # stations
    "station_connected": LogEvent("info", "a station's connection was accepted"),
    "station_disconnected": LogEvent(
        "info",
        "a station's connection ended; its share of the cap stays reserved",
        "if it does not return within minutes, check its network and power",
    ),
    "station_refused": LogEvent(
        "warning",
        "a connection was refused; `status` is 404 unknown id, 401 wrong "
        "password, 403 needs TLS or another certificate, 409 id in use, 429 too many "
        "failures, 101 no common OCPP version",
        "compare id, password and OCPP version at the station with [[stations]]",
    ),
    "station_writes_much": LogEvent(
        "warning",
        "a station filled its share of the disk for today; its state is still kept",
        "look for a sampling interval of a second, or a message that it repeats",
    ),
    "version_assumed": LogEvent(
        "warning",
        "a station names no OCPP version when it connects: it is spoken to in `version`",
        "pin its `versions` in [[stations]]; a proxy may have taken the header away",
    ),
    "station_reconnected": LogEvent("info", "it came back without a boot, as stations do"),
    "station_configured": LogEvent(
        "info", "its settings were read and differences written"
    ),
    "station_notified": LogEvent(
        "info", "diagnostics, firmware or log status of a station"
    ),
    "link_replaced": LogEvent(
        "info",
        "a newer connection of the same station replaced an older one",
        "if it repeats, look for two stations with one id or a bad network",
    ),
    "link_closed_by_agent": LogEvent(
        "warning",
        "a dead or deaf connection was closed",
        "check the station's network",
    ),
    "link_failed": LogEvent(
        "error",
        "a bug ended one link; the station will connect again",
        "report it with the traceback",
    ),
    "station_slowed_down": LogEvent(
        "warning",
        "a station floods the link; it is read at the rate that is allowed",
        "look for a fault in its firmware, or raise ocpp.station_messages_per_s",
    ),
    "frame_refused": LogEvent("warning", "a frame was not valid OCPP-J; the link lives"),
    "schema_breached": LogEvent(
        "warning",
        "a message breaks its schema; what could be read was used",
        "tell the station's maker",
    ),
    "action_unknown": LogEvent("info", "a station sent an action that no one answers"),
    "answer_unmatched": LogEvent("info", "an answer came that nobody asked for"),
    "answer_late": LogEvent("info", "an answer came after the call was given up"),
    "call_timed_out": LogEvent("warning", "a station did not answer a call in time"),
    "anomaly_recorded": LogEvent("info", "something odd in a message was kept on record"),
    "setting_refused": LogEvent("info", "a station refused a setting; it works without"),
    "reboot_required": LogEvent(
        "info",
        "a setting takes effect after a reboot of the station",
        "reboot it when no vehicle charges",
    ),
    "data_transfer_received": LogEvent(
        "info",
        "a vendor message arrived",
        "if it carries the MAC, add a [[ocpp.extractors]] rule",
    ),
    "security_event_reported": LogEvent(
        "warning",
        "a station reported a security event; `grade` critical is the standard's word",
        "look at `kind`; `depot-agent station security-events` lists them",
    ),
    "security_alarm_raised": LogEvent(
        "error",
        "a station reported what does not happen in ordinary life: tampering, a cleared "
        "log, foreign firmware",
        "look at the station",
    ),
    "tls_handshake_failed": LogEvent(
        "warning",
        "TLS ended before a station said who it is; see `reason`",
        "certificate has expired: renew it; unknown ca: install the gateway's root at the "
        "station; unsupported protocol: it knows no TLS 1.2; http request: it means ws://",
    ),
    "source_blocked": LogEvent(
        "error",
        "five refused attempts within a minute: this address or id must wait 5 minutes",
        "correct the station's password or id, then reload; if it is nobody of yours, "
        "find it in the network",
    ),
    "link_contested": LogEvent(
        "error",
        "one id was taken over more than three times in ten minutes",
        "look for two stations with one id",
    ),
    "station_serial_refused": LogEvent(
        "error",
        "a station booted with another serial number than its id or certificate allows",
        "correct `serial_number` after an exchange; else somebody uses its credentials",
    ),
    "security_profile_raised": LogEvent(
        "info", "a station proved a higher security profile; lower is refused from now on"
    ),
    "security_profile_lowered": LogEvent(
        "warning",
        "a station went back to a lower profile, as allow_lower_profile lets it",
        "take allow_lower_profile out again",
    ),
    "password_sent": LogEvent(
        "info", "a station got a new password; the old one opens until it used the new"
    ),
    "password_replaced": LogEvent(
        "info", "the former password of a station does not open any more; see `by`"
    ),
    "certificate_requested": LogEvent(
        "info", "a station asked for a certificate; the signer has the request"
    ),
    "certificate_request_refused": LogEvent(
        "warning",
        "a station asked for a certificate that it does not get",
        "see `reason`",
    ),
    "certificate_not_signed": LogEvent(
        "warning",
        "the signer's answer to a station's request cannot be used",
        "see `reason`; drop another file, or let the station ask again",
    ),
    "certificate_waits": LogEvent(
        "info", "a signed certificate goes out when the station connects again"
    ),
    "certificate_accepted": LogEvent("info", "a station took its new certificate"),
    "certificate_rejected": LogEvent(
        "warning",
        "a station refused its new certificate",
        "install the CA's root at the station first (`station install-certificate`)",
    ),
    "certificate_renewal_asked": LogEvent(
        "info", "a station was asked to renew its certificate before it ends"
    ),
    "certificate_installed": LogEvent("info", "a root was installed at a station"),
    "certificate_deleted": LogEvent("info", "a root was deleted at a station"),
    "certificate_expiring": LogEvent(
        "warning",
        "a certificate ends within 30 days; see `certificate` and `days_left`",
        "renew it: `depot-agent pki server`, `depot-agent station renew-certificate`",
    ),
    "certificate_expiring_soon": LogEvent(
        "error",
        "a certificate ends within 7 days",
        "renew it now: stations will not connect by TLS afterwards",
    ),
    "certificate_expired": LogEvent(
        "error", "a certificate has ended", "renew it; stations refuse or are refused"
    ),
    "upkeep_ordered": LogEvent("info", "an operator ordered a log or firmware; see `what`"),
    "station_upkeep_failed": LogEvent(
        "warning",
        "a log upload or a firmware update failed at a station",
        "see `status`; check the address and the credentials in it",
    ),
    # vehicles and sessions
    "vehicle_plugged": LogEvent("info", "a cable was plugged in; a session opened"),
    "vehicle_matched": LogEvent("info", "the vehicle was recognised"),
    "vehicle_unmatched": LogEvent(
        "info",
        "no vehicle of the registry fits; it charges by policy.unmatched_kw",
        "if it is one of yours, enrol `mac` in ChargEye",
    ),
    "vehicle_ambiguous": LogEvent(
        "warning",
        "the evidence names more than one vehicle, or one that is plugged "
        "elsewhere; no plan is applied",
        "correct the registry",
    ),
    "session_started": LogEvent("info", "the first transaction of a session began"),
    "transaction_started": LogEvent("info", "another transaction in the same session"),
    "transaction_ended": LogEvent("info", "a transaction ended; the cable may still be in"),
    "transaction_superseded": LogEvent(
        "warning",
        "a new start arrived while one was open; its stop was lost",
    ),
    "transaction_orphaned": LogEvent(
        "warning",
        "a stop for a transaction that the agent does not know was filed",
    ),
    "session_ended": LogEvent("info", "the vehicle was unplugged; totals are final"),
    # plans and power
    "registry_received": LogEvent("info", "the vehicle list changed"),
    "vehicle_written": LogEvent(
        "info", "an operator changed a vehicle in ChargEye; `fields` names what"
    ),
    "vehicle_enrolled": LogEvent(
        "info", "an operator gave a vehicle another charging port in ChargEye"
    ),
    "schedules_written": LogEvent(
        "info", "an operator added or changed schedules in ChargEye"
    ),
    "schedules_synchronised": LogEvent(
        "warning",
        "an operator made a list all that is upcoming for a vehicle; `removed` are gone",
        "if `unexpected` is not empty, more was deleted than the dry run had named",
    ),
    "power_group_written": LogEvent(
        "warning",
        "an operator changed ChargEye's own load balancing",
    ),
    "location_written": LogEvent("info", "an operator created a location in ChargEye"),
    "registry_row_odd": LogEvent(
        "warning", "a vehicle could not be read whole", "correct it"
    ),
    "schedule_received": LogEvent("info", "a slot without a plan changed"),
    "schedule_row_odd": LogEvent("warning", "a schedule could not be read", "correct it"),
    "plan_received": LogEvent("info", "a new or changed plan will be executed"),
    "plan_refused": LogEvent(
        "warning",
        "a plan failed its checks and was refused whole",
        "look at `reason`; the last good plan goes on",
    ),
    "limit_sent": LogEvent("info", "a charging profile left for a station"),
    "limit_confirmed": LogEvent("info", "the station accepted it"),
    "limit_refused": LogEvent(
        "warning",
        "the station refused or did not answer; the old limit counts",
        "see `reason`; it is tried again",
    ),
    "limit_not_followed": LogEvent(
        "warning",
        "an outlet draws more than its limit allows; it is budgeted at what it draws",
        "check for a vendor load management that outranks OCPP",
    ),
    "ladder_moved": LogEvent(
        "info",
        "a station did not take its limit in this form; the next one is tried and "
        "remembered for the model; see `rung`",
    ),
    "outlet_fenced": LogEvent(
        "warning",
        "no form of limit reaches an outlet; for this session it counts with its rating",
        "look for the station's own load management or licence; then see [[ladders]]",
    ),
    "limit_contradicted": LogEvent(
        "warning",
        "a station's own composite schedule allows more than the limit that it accepted; "
        "until a meter value shows the limit it counts with its rating",
        "look for another master's profiles, or a load management that outranks OCPP",
    ),
    "composite_distrusted": LogEvent(
        "info",
        "a model's composite schedules say more than its power shows; they count no more",
    ),
    "efficiency_learned": LogEvent(
        "info",
        "a DC station's efficiency was measured on both of its sides; where it is below "
        "the configured one it counts for the cap",
    ),
    "limit_writes_many": LogEvent(
        "warning",
        "very many charging profiles were written to a station today; raises are spared",
        "look at `explain` for what changes its limit so often: site meter or circuit",
    ),
    "limit_followed_again": LogEvent("info", "an outlet follows its limit again"),
    "default_confirmed": LogEvent("info", "the safe default profile sits on the station"),
    "default_refused": LogEvent(
        "warning",
        "the station refused the safe default",
        "set its own offline limit by the maker's means",
    ),
    "cap_at_risk": LogEvent(
        "warning",
        "what outlets could draw together passes a cap until lower limits are confirmed",
        "if it stays, look for limit_refused and limit_not_followed",
    ),
    "limit_not_installed": LogEvent(
        "warning",
        "the station's own report does not hold a profile that it accepted; sent again",
        "if it repeats, name the firmware to the maker",
    ),
    "foreign_profile_cleared": LogEvent(
        "info", "a charging profile of an earlier central system was taken off"
    ),
    "fast_limit_sent": LogEvent(
        "info", "a 2.1 station took a lower limit ahead of its new profile"
    ),
    "external_limit_changed": LogEvent(
        "info",
        "another master limits the station (or let go); the agent's budget follows",
        "look for a local energy manager if it was not expected",
    ),
    "external_limit_unknown": LogEvent(
        "info", "another master limits the station but does not say to what"
    ),
    "charging_needs_reported": LogEvent(
        "info", "the vehicle said what it needs (ISO 15118)"
    ),
    "ev_schedule_refused": LogEvent(
        "warning",
        "the vehicle means to draw more than its profile allows; it was sent again",
    ),
    "departure_at_risk": LogEvent(
        "warning",
        "the vehicle will not reach its target by departure as things stand",
        "look at `depot-agent explain`; give it more power or another outlet",
    ),
    "departure_safe_again": LogEvent("info", "the target is within reach again"),
    "vehicle_not_resumed": LogEvent(
        "warning",
        "the vehicle should charge again after a pause and does not",
        "look at the vehicle; pulling and plugging the cable wakes most of them",
    ),
    "vehicle_resumed": LogEvent("info", "it charges again"),
    "resume_no_longer_due": LogEvent("info", "it need not resume any more"),
    "wake_step_taken": LogEvent("info", "a step to wake a vehicle; see `step`"),
    "catch_up_began": LogEvent(
        "info",
        "a vehicle behind its plan may draw more in the plan's segments; see `reason`",
    ),
    "catch_up_ended": LogEvent("info", "a vehicle that was behind its plan caught up"),
    "local_plan_made": LogEvent(
        "info", "charging plans were made on the gateway, for want of the cloud's"
    ),
    "local_plan_dropped": LogEvent("info", "the cloud's plans are back"),
    "site_meter_lost": LogEvent(
        "warning",
        "the site meter gives no fresh, plausible value; `unmanaged_w` counts, the "
        "configured safe assumption or more",
        "see `reason`; check what writes the file or answers the address",
    ),
    "site_meter_back": LogEvent("info", "the site meter's own values count again"),
    "meter_disagrees": LogEvent(
        "warning",
        "site meter and stations differ by over 10 % of charging for 5 minutes",
        "see `reason`; compare a station's own display with what it reports",
    ),
    # billing
    "accounts_received": LogEvent("info", "the accounts file was read and is in force"),
    "accounts_copy_not_read": LogEvent(
        "warning",
        "the copy of the last good accounts file could not be read",
        "nothing, if the file itself is good",
    ),
    "account_verified": LogEvent(
        "info", "the vehicle's payment account is good; billing limits nothing"
    ),
    "account_missing": LogEvent(
        "warning",
        "no good payment account for the vehicle; billing.without_account decides what "
        "it may draw where billing is required",
        "see `reason`; add the `vin` to the accounts file, or correct the registry",
    ),
    # clouds
    "cloud_unreachable": LogEvent(
        "warning",
        "a cloud does not answer; plans go on, facts wait in the outbox",
        "check the gateway's internet and the token",
    ),
    "cloud_recovered": LogEvent("info", "it answers again"),
    "report_delivered": LogEvent("info", "a cloud took what was owed"),
    "outbox_resent": LogEvent("info", "a technician had a message sent again"),
    "outbox_dropped": LogEvent("warning", "a technician gave a message up"),
    "smartcar_called": LogEvent(
        "info", "a request to Smartcar; `request_id` is what its support asks for"
    ),
    "smartcar_store_found_empty": LogEvent(
        "warning",
        "Smartcar holds nothing for a car, though it answers",
        "in Smartcar's dashboard: is the webhook verified and enabled, is the car "
        "subscribed to it, does the plan include the signals?",
    ),
    "smartcar_value_refused": LogEvent(
        "warning",
        "a value of a car could not be used (unknown unit, beyond what can be)",
        "look at `reason`; tell the makers of the agent if it repeats",
    ),
    "smartcar_read_cut_short": LogEvent(
        "info", "a later page of a car's values was not read; the first ones count"
    ),
    "smartcar_driver_needed": LogEvent(
        "warning",
        "Smartcar cannot reach a car until its driver does something; one try a day",
        "let the driver connect the car again; see `reason`",
    ),
    "smartcar_driver_satisfied": LogEvent("info", "the driver's consent works again"),
    "smartcar_capability_dropped": LogEvent(
        "info",
        "something does not work for a car and is not tried for a month; see `what`",
        "a permission comes back when the driver connects the car again",
    ),
    "smartcar_throttled": LogEvent(
        "warning",
        "Smartcar asked for a pause, of one car or of all",
        "if it repeats, compare the limits in [smartcar] with the contract",
    ),
    "smartcar_month_spent": LogEvent(
        "warning",
        "a car's requests of this month are used up; by the agent's counter only "
        "reads stop, told by Smartcar (`told_by`) commands as well",
        "raise monthly_requests if the plan allows more",
    ),
    "smartcar_plan_refused": LogEvent(
        "error",
        "Smartcar refuses because of the contract, not of the request",
        "look at the plan and the account in Smartcar's dashboard",
    ),
    "smartcar_request_refused": LogEvent(
        "error",
        "Smartcar does not take a request for what it is, or not with this token",
        "check client_id, client_secret and addresses; else report `reason`",
    ),
    "smartcar_tokens_unreadable": LogEvent(
        "error",
        "smartcar-tokens.json is damaged and was put aside (v2 only)",
        "put back a copy, or let the drivers connect again",
    ),
    "smartcar_token_renewed": LogEvent("info", "a driver's token was renewed (v2 only)"),
    "smartcar_token_renewal_failed": LogEvent(
        "warning",
        "a driver's token was not renewed (v2 only); tried again while it may live",
        "check the gateway's internet",
    ),
    "outbox_dead_letter": LogEvent(
        "error",
        "a cloud refused a report for good",
        "look at `depot-agent outbox`",
    ),
    # the agent itself
    "station_inventory_read": LogEvent(
        "info", "the station's device model (2.x) was read; counts in the fields"
    ),
    "call_not_supported": LogEvent(
        "info", "the station does not know a message; it is not sent again on this link"
    ),
    "answer_refused": LogEvent(
        "warning",
        "the station could not use an answer of the agent (2.1)",
        "report `code` and `reason` to the maker",
    ),
    "station_not_accepted": LogEvent(
        "info",
        "the station booted and was answered Pending or Rejected, as configured",
        "see `boot` of this station in the configuration",
    ),
    "early_call_refused": LogEvent(
        "info", "the station sent something before it was accepted"
    ),
    "soc_corrected": LogEvent(
        "info",
        "a measurement moved a vehicle's SoC by more than 3 points; `moved` says how far",
        "if one vehicle repeats it, check its battery size in the registry",
    ),
    "battery_learned": LogEvent(
        "info", "a finished session taught how a vehicle's SoC follows energy; `ratio`"
    ),
    "charge_goal_reached": LogEvent(
        "info", "a session came to its own goal, or to that of its payment account"
    ),
    "charge_goal_set": LogEvent("info", "somebody said how far a session is to charge"),
    "goal_stop_sent": LogEvent(
        "info", "a vehicle drew on after its goal: its station or its cloud is to stop it"
    ),
    "goal_not_held": LogEvent(
        "warning",
        "a vehicle goes on drawing after its goal",
        "set policy.goal_remote_stop, or unplug the vehicle",
    ),
    "car_read": LogEvent("info", "a vehicle's own cloud was asked; `why` says the moment"),
    "car_not_read": LogEvent(
        "warning",
        "a vehicle's own cloud gave nothing of use; the estimate goes on",
        "see `reason`; `depot-agent cars` shows who has to act",
    ),
    "car_not_at_outlet": LogEvent(
        "warning",
        "the vehicle that was recognised says that it is not plugged in",
        "check the MAC of the vehicle in the registry",
    ),
    "car_limit_set": LogEvent("info", "a vehicle's own charge limit was changed"),
    "car_limit_confirmed": LogEvent("info", "the vehicle shows the limit that was set"),
    "car_limit_refused": LogEvent(
        "info", "a vehicle's limit could not be set; it may stop earlier than planned"
    ),
    "car_limit_left": LogEvent(
        "warning",
        "somebody else changes the vehicle's limit; the agent leaves it",
        "ask who else controls the vehicle, its driver's app for one",
    ),
    "car_limit_restored": LogEvent("info", "the driver's own limit is back"),
    "car_limit_not_restored": LogEvent(
        "warning",
        "the driver's own limit could not be put back",
        "tell the driver, or `depot-agent cars limit VIN PERCENT` at its next charging",
    ),
    "car_limit_forgotten": LogEvent(
        "warning", "a stored change of a limit could not be read and is not put back"
    ),
    "car_command_sent": LogEvent("info", "a vehicle was told to start or stop charging"),
    "car_command_confirmed": LogEvent("info", "the station's meter shows that it obeyed"),
    "car_command_not_confirmed": LogEvent(
        "warning",
        "the station's meter does not show that the vehicle obeyed",
        "look at the vehicle: timers of its own, its app, the plug",
    ),
    "cars_connected": LogEvent(
        "info",
        "the list of connected vehicles was read; `missing` are configured, not connected",
        "let the driver of a missing vehicle give consent, or take it off the list",
    ),
    "contract_refused": LogEvent(
        "info",
        "a Plug & Charge contract cannot be verified here; other tokens still charge",
    ),
    "transaction_resumed": LogEvent(
        "info", "a transaction of 2.1 goes on after a reboot; its limit is sent again"
    ),
    "vehicle_id_not_offered": LogEvent(
        "info", "the station's device model has no ConnectedEV.VehicleId"
    ),
    "agent_started": LogEvent("info", "the daemon runs"),
    "agent_ready": LogEvent("info", "stations may connect"),
    "agent_stopping": LogEvent("info", "the daemon was asked to stop"),
    "agent_stopped": LogEvent("info", "all is on disk"),
    "agent_failed": LogEvent("error", "an essential task failed; systemd starts again"),
    "state_recovered": LogEvent("info", "what survived the restart was loaded"),
    "clock_not_set": LogEvent(
        "error",
        "the gateway does not know the time: no plan is executed",
        "check its network and time service; records of this time are marked",
    ),
    "clock_set": LogEvent("info", "the gateway knows the time again; plans are executed"),
    "disk_full": LogEvent(
        "error",
        "the disk is full; the space that was held back for this is in use now",
        "free space at once; nothing is lost yet",
    ),
    "database_restored": LogEvent(
        "error",
        "the database was damaged and its newest good backup took its place; what "
        "happened after `lost_since` is lost here",
        "keep the file that was set aside, check the disk, replace the card",
    ),
    "backup_kept": LogEvent("info", "a copy of the database was written beside it"),
    "record_not_stored": LogEvent(
        "error",
        "the disk did not take a record; the station was not answered",
        "free space, check the disk",
    ),
    "config_reloaded": LogEvent("info", "changed settings are in force"),
    "local_file_read": LogEvent("info", "a file of [local] was read and is in force"),
    "local_file_refused": LogEvent(
        "error",
        "a file of [local] is wrong; its last good content stays in force",
        "see `reason`; `depot-agent check-config` names every fault",
    ),
    "config_refused": LogEvent(
        "error",
        "the configuration is wrong; the old one stays",
        "see `reason`",
    ),
    "watchdog_withheld": LogEvent(
        "error",
        "something hangs: systemd will restart the daemon",
    ),
}


def markdown() -> str:
    """The table of the README."""
    lines = ["| event | level | meaning | what to do |", "| --- | --- | --- | --- |"]
    for name, item in sorted(EVENTS.items()):
        lines.append(f"| `{name}` | {item.level} | {item.meaning} | {item.to_do} |")
    return "\n".join(lines)
