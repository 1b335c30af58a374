"""The ladder of profile forms: what an answer teaches, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agent.domain.capability import ProfileForm, RateUnit
from agent.domain.curve import constant
from agent.domain.ids import EvseId, TransactionId
from agent.domain.ladder import (
    BOOK_MAX,
    FENCE_RETRY,
    FEW_PERIODS,
    TRIALS_MAX,
    Facts,
    Fix,
    LadderKey,
    Learned,
    Move,
    Outcome,
    Ruling,
    Rung,
    Trial,
    Way,
    as_sent,
    by_hand,
    describe,
    next_form,
    recall,
    remember,
    reopened,
    vendor_key,
    vendor_value,
    way_of,
)
from agent.domain.profile import Purpose, compile_tx
from tests.support.properties import examples
from tests.unit.domain.build import NOW, after

quick = examples(150)
W, A = RateUnit.WATT, RateUnit.AMPERE
KEY = LadderKey(vendor="Maker", model="Box", firmware="1.0")
DC = ProfileForm(unit=W, phases=None, periods_max=24, stack_level=3)
AC = ProfileForm(unit=A, phases=3, periods_max=24, stack_level=3)
DC_FACTS = Facts()
AC_FACTS = Facts(is_dc=False)
REFUSED, IGNORED = Outcome.REFUSED, Outcome.IGNORED

Test = Callable[[Way], bool]


def _next(
    learned: Learned,
    outcome: Outcome,
    reason: str = "",
    *,
    form: ProfileForm = AC,
    facts: Facts = AC_FACTS,
    **more,
) -> Ruling:
    return next_form(form, learned, outcome, reason, facts=facts, now=NOW, **more)


def _first(outcome: Outcome, reason: str = "", **more) -> Ruling:
    return _next(Learned(key=KEY), outcome, reason, **more)


def _again(learned: Learned, times: int, outcome: Outcome, reason="", **more) -> Ruling:
    """Let the same thing happen several times; the last ruling."""
    ruling = _next(learned, outcome, reason, **more)
    for _ in range(times - 1):
        ruling = _next(ruling.learned, outcome, reason, **more)
    return ruling


def _live(
    takes: Test,
    outcome: Outcome = REFUSED,
    reason: str = "Rejected",
    *,
    form: ProfileForm = AC,
    facts: Facts = AC_FACTS,
) -> tuple[Ruling, list[Way]]:
    """Send to a station that takes what ``takes`` says until it works or is fenced."""
    learned = Learned(key=KEY)
    tried = []
    for _ in range(60):
        way = way_of(form, learned, facts)
        tried.append(way)
        answer = Outcome.FOLLOWED if takes(way) else outcome
        ruling = next_form(form, learned, answer, reason, facts=facts, now=NOW, sent=way)
        learned = ruling.learned
        if ruling.move in {Move.KEEP, Move.FENCE}:
            return ruling, tried
    raise AssertionError("the ladder has no end")


def _form(way: Way) -> ProfileForm:
    assert way.form is not None
    return way.form


def _tx(way: Way) -> ProfileForm | None:
    return way.form if way.purpose is Purpose.TX else None


# --- the order --------------------------------------------------------------------

STATIONS: list[tuple[Rung, Test]] = [
    (Rung.PLAIN, lambda _: True),
    (Rung.KIND, lambda way: (f := _tx(way)) is not None and f.is_relative),
    (Rung.UNIT, lambda way: (f := _tx(way)) is not None and f.unit is W),
    (Rung.PHASES, lambda way: (f := _tx(way)) is not None and f.phases is None),
    (Rung.STACK_ZERO, lambda way: (f := _tx(way)) is not None and f.stack_level == 0),
    (Rung.ONE_PERIOD, lambda way: (f := _tx(way)) is not None and f.periods_max == 1),
    (
        Rung.KIND_STACK_ZERO,
        lambda way: (f := _tx(way)) is not None and f.is_relative and f.stack_level == 0,
    ),
    (
        Rung.SIMPLEST,
        lambda way: (f := _tx(way)) is not None and f.is_relative and f.periods_max == 1,
    ),
    (
        Rung.SIMPLEST_UNIT,
        lambda way: (f := _tx(way)) is not None and f.unit is W and f.periods_max == 1,
    ),
    (Rung.TX_DEFAULT, lambda way: way.purpose is Purpose.TX_DEFAULT),
    (
        Rung.TX_DEFAULT_SIMPLEST,
        lambda way: way.purpose is Purpose.TX_DEFAULT and _form(way).is_relative,
    ),
    (
        Rung.STATION_MAX,
        lambda way: way.purpose is Purpose.STATION_MAX and way.vendor_key is None,
    ),
    (Rung.VENDOR_KEY, lambda way: way.vendor_key is not None),
]
"""For each rung a station that is content with it and with nothing before it."""

EVBOX = Facts(is_dc=False, vendor_key=vendor_key("EVBox B.V.", "MaxStationCurrent"))


@pytest.mark.parametrize(("rung", "takes"), STATIONS)
@pytest.mark.parametrize("outcome", [REFUSED, IGNORED])
def test_every_rung_is_reached_by_the_station_that_needs_it(rung, takes, outcome):
    """PRF-16 and B13: purpose, kind, stack, unit, each once."""
    ruling, tried = _live(takes, outcome, facts=EVBOX)

    assert ruling.move is Move.KEEP
    assert ruling.learned.rung is rung
    assert ruling.learned.is_proven
    assert len(tried) == list(Rung).index(rung) + 1


def test_a_station_that_takes_nothing_is_fenced_after_each_way_once():
    ruling, tried = _live(lambda _: False, facts=EVBOX)
    looks = [(way.purpose, way.form, way.vendor_key) for way in tried]

    assert ruling.move is Move.FENCE
    assert ruling.way.form is None
    assert ruling.learned.rung is Rung.FENCE
    assert "load management" in ruling.words  # PRF-14
    assert len(tried) == len(Rung) - 1
    assert len({str(look) for look in looks}) == len(looks)


forms = st.builds(
    ProfileForm,
    unit=st.sampled_from([W, A]),
    phases=st.sampled_from([None, 1, 3]),
    periods_max=st.sampled_from([1, 4, 24]),
    stack_level=st.sampled_from([0, 1, 9]),
    is_relative=st.booleans(),
    whole_amps=st.booleans(),
)
all_facts = st.builds(
    Facts,
    is_dc=st.booleans(),
    outlets=st.integers(1, 3),
    units=st.frozensets(st.sampled_from([W, A])),
    quirks=st.frozensets(
        st.sampled_from(
            [
                "stack-level-0",
                "relative-only",
                "single-period",
                "watts-only",
                "amps-only",
                "whole-amps",
                "no-default-profile",
            ]
        )
    ),
    vendor_key=st.sampled_from([None, vendor_key("KEBA", "Limit")]),
)
reasons = st.sampled_from(
    [
        "",
        "Rejected",
        "NotSupported",
        "TooManyElements",
        "InvalidStackLevel",
        "UnsupportedRateUnit",
        "NoPhaseForDC",
        "InvalidSchedule",
        "FormationViolation",
        "\x00\u202e" * 500,
    ]
)


@quick
@given(form=forms, facts=all_facts, words=st.lists(reasons, min_size=60, max_size=60))
def test_whatever_it_says_a_station_that_refuses_all_is_fenced_in_bounded_time(
    form, facts, words
):
    learned = Learned(key=KEY)
    seen = []
    for word in words:
        way = way_of(form, learned, facts)
        seen.append(str((way.purpose, way.form, way.vendor_key)))
        ruling = next_form(form, learned, REFUSED, word, facts=facts, now=NOW, sent=way)
        learned = ruling.learned
        if ruling.move is Move.FENCE:
            break

    assert learned.rung is Rung.FENCE
    assert len(set(seen)) == len(seen)


@quick
@given(
    form=forms,
    facts=all_facts,
    rung=st.sampled_from(list(Rung)[:-1]),
    fixes=st.sets(st.sampled_from(list(Fix))),
)
def test_no_rung_takes_more_than_the_station_gave_or_a_person_fixed(
    form, facts, rung, fixes
):
    """Quirks set by hand win; sizes only shrink."""
    way = way_of(form, Learned(key=KEY, rung=rung, fixes=tuple(fixes)), facts)
    new = _form(way)

    assert new.periods_max <= form.periods_max
    assert new.stack_level <= form.stack_level
    assert new.minimum_w == form.minimum_w
    assert new.zero_allowed == (form.zero_allowed and Fix.NO_ZERO not in fixes)
    if facts.quirks & {"watts-only", "amps-only"}:
        assert new.unit is form.unit
    if "relative-only" in facts.quirks and way.purpose is not Purpose.STATION_MAX:
        assert new.is_relative is form.is_relative
    if facts.is_dc and A not in facts.units and form.unit is W:
        assert new.unit is W
    if way.purpose is Purpose.STATION_MAX:
        assert not new.is_relative


# --- plain causes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "field", "value"),
    [
        ("PropertyConstraintViolation limit is not a multipleOf 0.1", "whole_amps", True),
        ("FormationViolation", "whole_amps", True),
        ("Rejected TypeConstraintViolation: decimals", "whole_amps", True),
        ("Rejected UnsupportedRateUnit", "unit", W),
        ("Rejected chargingRateUnit A is not offered", "unit", W),
        ("Rejected TooManyElements", "periods_max", FEW_PERIODS),
        ("OccurrenceConstraintViolation", "periods_max", FEW_PERIODS),
        ("Rejected InvalidStackLevel", "stack_level", 0),
        ("stackLevel must be <= 0", "stack_level", 0),
        ("Rejected PhaseConflict", "phases", None),
        ("numberPhases not expected", "phases", None),
        ("Rejected UnsupportedKind", "is_relative", True),
        ("Rejected InvalidSchedule", "is_relative", True),
        ("startSchedule is not allowed", "is_relative", True),
    ],
)
def test_a_named_cause_is_mended_on_the_same_rung(reason, field, value):
    """PRF-13, LIM-01, PRF-10, PRF-03, LIM-04, PRF-08."""
    ruling = _first(REFUSED, reason)

    assert ruling.move is Move.CHANGE
    assert ruling.learned.rung is Rung.PLAIN
    assert _form(ruling.way) == replace(AC, **{field: value})


def test_prf_01_a_refused_purpose_leads_to_the_next_purpose_at_once():
    """Timxon: TxProfile is NotSupported, only TxDefaultProfile works (B9)."""
    ruling = _first(REFUSED, "NotSupported")
    assert ruling.learned.rung is Rung.TX_DEFAULT

    again = _next(ruling.learned, REFUSED, "Rejected UnsupportedPurpose")
    assert again.learned.rung is Rung.STATION_MAX

    last = _next(again.learned, REFUSED, "NotImplemented")
    assert last.move is Move.FENCE


def test_prf_02_the_stations_maximum_goes_to_evse_zero_only_where_there_is_one_outlet():
    one, _ = _live(lambda way: way.purpose is Purpose.STATION_MAX)
    assert one.move is Move.KEEP

    two, tried = _live(
        lambda way: way.purpose is Purpose.STATION_MAX, facts=replace(AC_FACTS, outlets=2)
    )
    assert two.move is Move.FENCE
    assert Purpose.STATION_MAX not in {way.purpose for way in tried}


def test_prf_03_a_station_that_takes_level_zero_only_says_so_or_is_found_out():
    said = _first(REFUSED, "InvalidStackLevel")
    silent, _ = _live(lambda way: _form(way).stack_level == 0)

    assert _form(said.way).stack_level == 0
    assert silent.learned.rung is Rung.STACK_ZERO


def test_prf_05_an_unknown_transaction_is_no_matter_of_form():
    learned = Learned(key=KEY)
    for reason in ["Rejected TxNotFound", "unknown transaction 41", "transactionId 0"]:
        for _ in range(10):
            ruling = _next(learned, REFUSED, reason)
            learned = ruling.learned
            assert ruling.move is Move.WAIT

    assert learned.rung is Rung.PLAIN


def test_prf_08_absolute_and_relative_are_tried_in_turn():
    relative, _ = _live(lambda way: _form(way).is_relative)
    assert relative.learned.rung is Rung.KIND

    form = replace(AC, is_relative=True)
    absolute = _first(REFUSED, "startSchedule is missing", form=form)
    assert not _form(absolute.way).is_relative


def test_prf_10_too_many_periods_become_few_and_then_one():
    few = _first(REFUSED, "TooManyElements")
    one = _next(few.learned, REFUSED, "TooManyElements")

    assert _form(few.way).periods_max == 6
    assert _form(one.way).periods_max == 1
    assert one.learned.rung is Rung.PLAIN
    assert _next(one.learned, REFUSED, "TooManyElements").learned.rung is Rung.KIND


def test_prf_10_a_station_that_goes_away_three_times_gets_shorter_schedules():
    start = Learned(key=KEY)
    ruling = _again(start, 3, Outcome.OFFLINE, "Offline", answered_else=True)

    assert _form(ruling.way).periods_max == FEW_PERIODS


def test_prf_11_a_duplicate_is_cleared_and_the_same_form_repeated():
    ruling = _first(REFUSED, "Rejected DuplicateProfile")
    assert ruling.move is Move.CLEAR_FIRST
    assert ruling.learned.rung is Rung.PLAIN
    assert ruling.way.form == AC

    again = _next(ruling.learned, REFUSED, "Rejected DuplicateProfile")
    third = _next(again.learned, REFUSED, "Rejected DuplicateProfile")
    assert again.move is Move.CLEAR_FIRST
    assert third.learned.rung is Rung.KIND


def test_prf_12_a_refusal_keeps_what_worked_as_what_is_installed():
    """One refusal says little of a way that worked; the old profile rules on."""
    learned = _first(Outcome.FOLLOWED).learned
    moves = []
    for _ in range(3):
        ruling = _next(learned, REFUSED, "Rejected")
        learned = ruling.learned
        moves.append(ruling.move)

    assert moves == [Move.WAIT, Move.WAIT, Move.CHANGE]
    assert learned.proven is Rung.PLAIN


def test_prf_13_whole_amperes_stay_on_every_later_rung():
    learned = _first(REFUSED, "FormationViolation").learned
    while learned.rung is not Rung.TX_DEFAULT:
        ruling = _next(learned, REFUSED, "Rejected")
        learned = ruling.learned
        if _form(ruling.way).unit is A:
            assert _form(ruling.way).whole_amps


def test_a_station_that_wants_fewer_orders_is_asked_later_in_the_same_way():
    learned = Learned(key=KEY)
    for _ in range(20):
        ruling = _next(learned, REFUSED, "Rejected RateLimitExceeded 30 seconds")
        learned = ruling.learned
        assert ruling.move is Move.WAIT

    assert learned.rung is Rung.PLAIN


def test_lim_01_watts_only_is_found_by_word_or_by_trying():
    ruling, _ = _live(lambda way: _form(way).unit is W)

    assert ruling.learned.rung is Rung.UNIT
    assert _form(_first(REFUSED, "UnsupportedRateUnit").way).unit is W


def test_lim_02_watts_that_are_ignored_lead_to_amperes():
    form = replace(AC, unit=W)
    ruling, _ = _live(lambda way: _form(way).unit is A, IGNORED, form=form)

    assert ruling.learned.rung is Rung.UNIT


def test_lim_03_amperes_on_dc_only_where_the_station_names_them():
    said = replace(DC_FACTS, units=frozenset({A, W}))
    named, _ = _live(lambda way: _form(way).unit is A, IGNORED, form=DC, facts=said)
    unnamed, tried = _live(
        lambda way: _form(way).unit is A, IGNORED, form=DC, facts=DC_FACTS
    )

    assert named.learned.rung is Rung.UNIT
    assert unnamed.move is Move.FENCE
    assert {_form(way).unit for way in tried} == {W}


def test_lim_04_phases_are_left_out_or_put_in():
    without, _ = _live(lambda way: _form(way).phases is None)
    with_phases, _ = _live(lambda way: _form(way).phases == 3, form=DC, facts=DC_FACTS)

    assert without.learned.rung is with_phases.learned.rung is Rung.PHASES
    assert _form(_first(REFUSED, "NoPhaseForDC", form=replace(DC, phases=3)).way) == DC


@pytest.mark.parametrize("rung", list(Rung)[:-1])
def test_lim_05_and_lim_09_no_rung_touches_the_minimum_or_allows_a_zero(rung):
    form = replace(DC, minimum_w=2000.0, zero_allowed=False)
    new = _form(way_of(form, Learned(key=KEY, rung=rung), DC_FACTS))

    assert new.minimum_w == 2000
    assert not new.zero_allowed


def test_wallbox_wants_relative_and_level_zero_at_once():
    ruling, _ = _live(
        lambda way: (
            way.purpose is Purpose.TX
            and _form(way).is_relative
            and _form(way).stack_level == 0
        )
    )

    assert ruling.learned.rung is Rung.KIND_STACK_ZERO


# --- silence ----------------------------------------------------------------------


@quick
@given(
    outcomes=st.lists(
        st.sampled_from([Outcome.SILENT, Outcome.OFFLINE]), min_size=1, max_size=30
    )
)
def test_silence_alone_withdraws_nothing(outcomes):
    """CFG-05: the station may be dead for reasons of its own."""
    learned = Learned(key=KEY)
    for outcome in outcomes:
        ruling = _next(learned, outcome, answered_else=False)
        learned = ruling.learned
        assert ruling.move is Move.WAIT

    assert way_of(AC, learned, AC_FACTS).form == AC


@pytest.mark.parametrize("count", [1, 2, 3])
def test_three_silences_beside_other_answers_move_one_rung(count):
    ruling = _again(Learned(key=KEY), count, Outcome.SILENT, answered_else=True)

    assert (ruling.move is Move.CHANGE) is (count == 3)
    assert ruling.learned.rung is (Rung.KIND if count == 3 else Rung.PLAIN)


def test_an_answer_between_silences_begins_the_count_anew():
    twice = _again(Learned(key=KEY), 2, Outcome.SILENT, answered_else=True)
    answered = _next(twice.learned, Outcome.ACCEPTED)
    ruling = _again(answered.learned, 2, Outcome.SILENT, answered_else=True)

    assert ruling.move is Move.WAIT
    assert ruling.learned.rung is Rung.PLAIN


def test_a_way_that_worked_is_never_left_for_silence():
    learned = _first(Outcome.FOLLOWED).learned
    for _ in range(20):
        learned = _next(learned, Outcome.SILENT, answered_else=True).learned

    assert learned.rung is Rung.PLAIN
    assert learned.is_proven


def test_timxon_absolute_gets_no_answer_and_the_relative_default_works():
    learned = _first(REFUSED, "NotSupported").learned
    for _ in range(3):
        learned = _next(learned, Outcome.SILENT, answered_else=True).learned
    way = way_of(AC, learned, AC_FACTS)

    assert way.purpose is Purpose.TX_DEFAULT
    assert _form(way).is_relative


# --- ignored and proven -----------------------------------------------------------


def test_ver_06_an_ignored_profile_moves_one_rung():
    assert _first(IGNORED).learned.rung is Rung.KIND


def test_a_proven_way_is_left_when_it_is_ignored_twice():
    learned = _first(Outcome.FOLLOWED).learned
    once = _next(learned, IGNORED)
    sent_again = _next(once.learned, Outcome.ACCEPTED)
    twice = _next(sent_again.learned, IGNORED)

    assert once.move is Move.WAIT
    assert sent_again.move is Move.KEEP
    assert twice.learned.rung is Rung.KIND


def test_following_in_between_forgives_an_ignored_order():
    learned = _first(Outcome.FOLLOWED).learned
    for outcome in [IGNORED, Outcome.FOLLOWED, IGNORED]:
        learned = _next(learned, outcome).learned

    assert learned.rung is Rung.PLAIN


@quick
@given(
    rung=st.sampled_from(list(Rung)[:-1]),
    outcomes=st.lists(st.sampled_from([Outcome.ACCEPTED, Outcome.FOLLOWED]), max_size=9),
)
def test_success_changes_no_rung(rung, outcomes):
    learned = Learned(key=KEY, rung=rung)
    for outcome in outcomes:
        ruling = _next(learned, outcome, facts=EVBOX)
        learned = ruling.learned
        assert ruling.move is Move.KEEP

    assert learned.rung is rung
    assert learned.is_proven is (Outcome.FOLLOWED in outcomes)


def test_a_model_that_worked_is_not_written_off_for_one_stations_trouble():
    ruling = _first(Outcome.FOLLOWED)
    for _ in range(100):
        ruling = _next(ruling.learned, REFUSED, "Rejected")
        if ruling.move is Move.FENCE:
            break

    assert ruling.way.form is None
    assert ruling.learned.rung is Rung.PLAIN
    assert ruling.learned.is_proven


def test_an_answer_to_an_older_way_teaches_nothing():
    """Ten stations of a model refuse the same form: that is one step, not ten."""
    start = Learned(key=KEY)
    way = way_of(AC, start, AC_FACTS)
    ruling = _again(start, 10, REFUSED, "Rejected", sent=way)

    assert ruling.learned.rung is Rung.KIND
    assert ruling.move is Move.CHANGE
    assert _form(ruling.way).is_relative


# --- by hand, and what is kept ----------------------------------------------------


@quick
@given(
    rung=st.sampled_from(list(Rung)),
    outcomes=st.lists(st.sampled_from(list(Outcome)), max_size=15),
)
def test_a_rung_set_by_hand_is_moved_by_nothing(rung, outcomes):
    learned = by_hand(KEY, rung, [Fix.WHOLE_AMPS])
    for outcome in outcomes:
        learned = _next(learned, outcome, "TooManyElements", answered_else=True).learned

    assert learned.rung is rung
    assert learned.fixes == (Fix.WHOLE_AMPS,)
    assert reopened(learned, after(10**6)) == learned


@pytest.mark.parametrize(
    ("quirk", "form", "reason"),
    [
        ("relative-only", replace(AC, is_relative=True), "UnsupportedKind"),
        ("amps-only", AC, "UnsupportedRateUnit"),
        ("stack-level-0", replace(AC, stack_level=0), "InvalidStackLevel"),
        ("single-period", replace(AC, periods_max=1), "TooManyElements"),
        ("whole-amps", replace(AC, whole_amps=True), "FormationViolation"),
    ],
)
def test_a_quirk_set_by_hand_is_not_unlearned(quirk, form, reason):
    facts = replace(AC_FACTS, quirks=frozenset({quirk}))
    ruling = _first(REFUSED, reason, form=form, facts=facts)

    assert ruling.learned.fixes == ()
    assert ruling.learned.rung is not Rung.PLAIN


def test_without_default_profiles_that_purpose_is_not_tried():
    facts = replace(AC_FACTS, quirks=frozenset({"no-default-profile"}))
    _, tried = _live(lambda _: False, facts=facts)

    assert Purpose.TX_DEFAULT not in {way.purpose for way in tried}


def test_a_new_firmware_starts_from_the_top_and_the_old_entry_stays():
    learned = Learned(key=KEY, rung=Rung.TX_DEFAULT)
    book = remember([], learned)
    newer = replace(KEY, firmware="1.1")

    assert recall(book, KEY) == learned
    assert recall(book, newer) == Learned(key=newer)
    assert recall(remember(book, recall(book, newer)), KEY) == learned


def test_the_book_keeps_one_entry_per_firmware_and_is_bounded():
    book: tuple[Learned, ...] = ()
    for number in range(BOOK_MAX + 50):
        key = replace(KEY, firmware=str(number % (BOOK_MAX + 20)))
        book = remember(book, Learned(key=key))

    assert len(book) == BOOK_MAX
    assert len({item.key for item in book}) == BOOK_MAX


def test_repeats_of_one_outcome_are_one_trial_and_trials_are_bounded():
    learned = Learned(key=KEY)
    for _ in range(5):
        learned = _next(learned, Outcome.SILENT, "Timeout").learned
    assert learned.trials == (
        Trial(rung=Rung.PLAIN, outcome=Outcome.SILENT, at=NOW, reason="Timeout"),
    )

    for number in range(200):
        learned = _next(learned, Outcome.ACCEPTED, str(number)).learned
    assert len(learned.trials) == TRIALS_MAX


def test_a_fenced_model_is_tried_again_after_a_day():
    ruling, _ = _live(lambda _: False)
    fenced = ruling.learned

    assert reopened(fenced, NOW + FENCE_RETRY / 2) == fenced
    assert reopened(fenced, NOW + FENCE_RETRY).rung is Rung.PLAIN
    assert _next(fenced, REFUSED).move is Move.FENCE
    assert way_of(AC, fenced, AC_FACTS).form is None


def test_what_was_learned_survives_being_stored():
    learned = _next(_first(REFUSED, "FormationViolation").learned, IGNORED).learned
    adapter = TypeAdapter(Learned)

    assert adapter.validate_json(orjson.dumps(learned)) == learned
    assert learned.fixes
    assert learned.trials


def test_a_person_reads_what_was_learned():
    learned = _first(REFUSED, "Rejected").learned
    learned = _next(learned, Outcome.FOLLOWED).learned

    assert describe(learned) == (
        "relative (proven by measured power); before: plain refused (Rejected)"
    )
    assert describe(Learned(key=KEY)) == "plain (not yet proven)"
    assert describe(by_hand(KEY, Rung.TX_DEFAULT)) == "tx-default (set by hand)"


# --- what is sent -----------------------------------------------------------------


def _compiled(form: ProfileForm):
    return compile_tx(
        constant(11_000.0),
        evse_id=EvseId(2),
        transaction_id=TransactionId("41"),
        form=form,
        now=NOW,
        transaction_started_at=NOW,
    ).profile


@pytest.mark.parametrize(
    ("rung", "purpose", "profile_id", "transaction_id"),
    [
        (Rung.PLAIN, Purpose.TX, 102, TransactionId("41")),
        (Rung.TX_DEFAULT, Purpose.TX_DEFAULT, 3, None),
        (Rung.STATION_MAX, Purpose.STATION_MAX, 100, None),
    ],
)
@pytest.mark.parametrize("offset", [0, 1000])
def test_a_profile_is_sent_for_the_ways_purpose(
    rung, purpose, profile_id, transaction_id, offset
):
    """PRF-05: no transaction id but on a TxProfile; PRF-11: one id per purpose."""
    way = way_of(replace(AC, id_offset=offset), Learned(key=KEY, rung=rung), AC_FACTS)
    sent = as_sent(_compiled(_form(way)), way, EvseId(2))

    assert sent.purpose is purpose
    assert sent.profile_id == profile_id + offset
    assert sent.transaction_id == transaction_id
    assert sent.periods


@pytest.mark.parametrize(
    ("vendor", "expected"),
    [("EVBox B.V.", "160"), ("Keba AG", "16000")],
)
def test_cfg_12_a_vendor_key_is_written_in_the_vendors_steps(vendor, expected):
    key = vendor_key(vendor, "MaxStationCurrent")

    assert key is not None
    assert vendor_value(16.9 * 230 * 3, key, phases=3) == expected
    assert vendor_value(-5.0, key, phases=0) == "0"


@pytest.mark.parametrize(
    ("vendor", "name"), [("EVBox", None), ("EVBox", ""), ("Other", "Limit")]
)
def test_without_a_key_or_a_known_vendor_there_is_no_such_rung(vendor, name):
    assert vendor_key(vendor, name) is None


# --- LIM-08: a limit of 0 is refused ----------------------------------------------------

ZERO = Outcome.REFUSED_ZERO


def tell(learned, outcome, reason=""):
    return next_form(
        PLAIN_FORM, learned, outcome, reason, facts=Facts(), now=NOW, sent=None
    )


PLAIN_FORM = ProfileForm(unit=RateUnit.WATT, phases=None, periods_max=24, stack_level=3)


def test_a_form_that_was_taken_without_a_zero_is_kept_without_zeros():
    taken = tell(Learned(key=KEY), Outcome.ACCEPTED).learned
    ruling = tell(taken, ZERO, "Rejected")

    assert ruling.move is Move.CHANGE
    assert (ruling.learned.rung, ruling.learned.fixes) == (Rung.PLAIN, (Fix.NO_ZERO,))
    assert ruling.way.form is not None
    assert not ruling.way.form.zero_allowed


def test_a_first_order_with_a_zero_climbs_like_any_other():
    ruling = tell(Learned(key=KEY), ZERO, "Rejected")

    assert ruling.learned.rung is Rung.KIND
    assert ruling.learned.fixes == ()


def test_plain_words_and_a_persons_rung_come_before_the_zero():
    taken = tell(Learned(key=KEY), Outcome.ACCEPTED).learned
    words = tell(taken, ZERO, "InvalidStackLevel")
    by_person = replace(taken, is_manual=True)

    assert words.learned.fixes == (Fix.STACK_ZERO,)
    assert tell(by_person, ZERO, "Rejected").move is Move.WAIT


def test_without_zeros_a_refusal_has_another_reason():
    taken = tell(Learned(key=KEY), Outcome.ACCEPTED).learned
    no_zero = tell(taken, ZERO, "Rejected").learned
    ruling = tell(no_zero, ZERO, "Rejected")

    assert ruling.learned.rung is not Rung.PLAIN
    assert ruling.learned.fixes.count(Fix.NO_ZERO) == 1
